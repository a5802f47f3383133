"""Vectors that an older index of the same guide already holds, found by role and text hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ..shared.errors import StaleIndexError
from ..shared.index import GuideIndex
from ..shared.manifest import named_differences
from ..shared.tables import read_table
from .guides import Guide


class OldVectors:
    """The texts of an older index and where their vectors are.

    Args:
        index: The older index.
        roles_alike: Whether the guide gives a text one vector whatever its role.
    """

    def __init__(self, index: GuideIndex, *, roles_alike: bool) -> None:
        self._index = index
        self._key = ["text_hash"] if roles_alike else ["role", "text_hash"]
        tables = [
            pl.from_arrow(read_table(index.layout.root, record, "texts", ["role", "text_hash"]))
            for record in index.manifest.parts["texts"]
        ]
        texts = pl.concat([table for table in tables if isinstance(table, pl.DataFrame)])
        self._texts = texts.with_row_index("old_id").unique(self._key, keep="first").select(*self._key, "old_id")

    @classmethod
    def open(cls, folder: str | Path, guide: Guide) -> OldVectors:
        """Open an older index.

        Raises:
            IndexFaultError: It is no finished index, or damaged.
            StaleIndexError: It was made with another guide; names each difference.
        """
        index = GuideIndex.open(folder)
        found = named_differences(
            {"guide": index.manifest.request.guide}, {"guide": guide.fingerprint()}, "the older index"
        )
        if found:
            raise StaleIndexError(
                "The older index was made with another guide:\n    " + "\n    ".join(found),
                where=f"--reuse {folder}",
                fix="give the guide and the settings it was made with, or leave --reuse out",
            )
        return cls(index, roles_alike=guide.same_for_both_roles)

    def take(self, texts: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of those texts that the older index holds.

        Args:
            texts: n rows with role and text_hash.

        Returns:
            (n,) bool, which rows it holds, and their vectors (held, dim) float16.
        """
        found = texts.select(*self._key).join(self._texts, on=self._key, how="left", maintain_order="left")
        held = found["old_id"].is_not_null().to_numpy()
        vectors = self._index.vectors(found["old_id"].drop_nulls().to_numpy().astype(np.int64))
        return held, vectors
