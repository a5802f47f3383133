"""Vectors found by text hash: those that an older index of the same guide already holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ...shared.guide_index.manifest import refuse_differences
from ...shared.guide_index.reusable_vectors import ReusableVectors
from ...shared.types import VectorDType

if TYPE_CHECKING:
    from ..guides.base import Guide


Held = tuple[np.ndarray, np.ndarray]  # which of the texts asked for, (n,) bool, and their vectors, (held, dim)


class RowsOfTexts:
    """Which row of some vectors belongs to a text, by the text's hash.

    Args:
        texts: text_hash, and role where a text has a vector for each role; rows in the order of the vectors. Of a text
            that stands there twice, the first row counts.
    """

    def __init__(self, texts: pl.DataFrame) -> None:
        self.key = texts.columns
        self._rows = texts.with_row_index("row").unique(self.key, keep="first")

    def find(self, texts: pl.DataFrame) -> pl.Series:
        """The rows of n texts (role, text_hash): (n,), null where a text is not there."""
        return texts.select(*self.key).join(self._rows, on=self.key, how="left", maintain_order="left")["row"]


class OldVectors:
    """The texts of an older index and where their vectors are.

    Args:
        folder: The older index.
        guide: The guide of the new one.

    Raises:
        IndexFaultError: It is no finished index, or damaged.
    """

    def __init__(self, folder: str | Path, guide: Guide) -> None:
        self._folder, self._index = str(folder), ReusableVectors.open(folder)
        key = ["text_hash"] if guide.same_for_both_roles else ["role", "text_hash"]
        tables = [pl.from_arrow(table) for table in self._index.text_tables(key)]
        self._rows = RowsOfTexts(pl.concat([table for table in tables if isinstance(table, pl.DataFrame)]).select(key))

    def refuse_other(self, guide: Guide, dtype: VectorDType) -> None:
        """See that it holds the vectors that a fresh build would give.

        Raises:
            StaleIndexError: It was made with another guide, or stores vectors as another type, and what is rounded
                twice is not what a fresh build gives; names each difference.
        """
        refuse_differences(
            {"guide": self._index.guide, "settings": {"vector_dtype": self._index.vector_dtype}},
            {"guide": guide.fingerprint(), "settings": {"vector_dtype": dtype}},
            "the older index",
            "The older index holds other vectors",
            where=f"--reuse {self._folder}",
            fix="give the guide and the settings it was made with, or leave --reuse out",
        )

    def holds(self, texts: pl.DataFrame) -> np.ndarray:
        """Which of n texts (role, text_hash) it has: (n,) bool."""
        return self._ids(texts) >= 0

    def take(self, texts: pl.DataFrame) -> Held:
        """The vectors of those texts that the older index holds.

        Args:
            texts: n rows with role and text_hash.

        Returns:
            Which rows it holds, and their vectors as stored.
        """
        ids = self._ids(texts)
        held = ids >= 0
        return held, self._index.vectors.take(ids[held])

    def _ids(self, texts: pl.DataFrame) -> np.ndarray:
        """(n,) int64 text ids of the older index, -1 for a text that it lacks."""
        return self._rows.find(texts).cast(pl.Int64).fill_null(-1).to_numpy()
