"""Vectors that an older index of the same guide already holds, found by role and text hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ..shared.errors import StaleIndexError
from ..shared.index import GuideIndex
from ..shared.manifest import named_differences
from ..shared.rounding import VectorDType
from ..shared.tables import read_table
from .guides import Guide

Held = tuple[np.ndarray, np.ndarray]  # which of the texts asked for, (n,) bool, and their vectors, (held, dim)


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
    def open(cls, folder: str | Path, guide: Guide, dtype: VectorDType) -> OldVectors:
        """Open an older index.

        Raises:
            IndexFaultError: It is no finished index, or damaged.
            StaleIndexError: It was made with another guide, or stores vectors as another type, and what is rounded
                twice is not what a fresh build gives; names each difference.
        """
        index = GuideIndex.open(folder)
        found = named_differences(
            {"guide": index.manifest.request.guide, "settings": {"vector_dtype": index.vector_dtype}},
            {"guide": guide.fingerprint(), "settings": {"vector_dtype": dtype}},
            "the older index",
        )
        if found:
            raise StaleIndexError(
                "The older index holds other vectors:\n    " + "\n    ".join(found),
                where=f"--reuse {folder}",
                fix="give the guide and the settings it was made with, or leave --reuse out",
            )
        return cls(index, roles_alike=guide.same_for_both_roles)

    def take(self, texts: pl.DataFrame) -> Held:
        """The vectors of those texts that the older index holds.

        Args:
            texts: n rows with role and text_hash.

        Returns:
            Which rows it holds, and their vectors as stored.
        """
        ids = self._ids(texts)
        held = ids >= 0
        return held, self._index.stored_vectors.take(ids[held])

    def unrounded(self, texts: pl.DataFrame) -> Held:
        """As ``take``, of those texts whose vectors it has from before rounding: float32."""
        index, records = self._index, self._index.unrounded()
        pairs = index.pairs(records["pair"], 0)
        known, ids = np.concatenate([pairs.anchors, pairs.positives]), self._ids(texts)
        if self._key == ["text_hash"]:
            known, ids = index.content_ids(known), index.content_ids(ids)
        return held_in(records, known, ids)

    def _ids(self, texts: pl.DataFrame) -> np.ndarray:
        """(n,) int64 text ids of the older index, -1 for a text that it lacks."""
        found = texts.select(*self._key).join(self._texts, on=self._key, how="left", maintain_order="left")
        return found["old_id"].cast(pl.Int64).fill_null(-1).to_numpy()


def held_in(records: np.ndarray, keys: np.ndarray, wanted: np.ndarray) -> Held:
    """Look texts up among the pairs whose vectors are kept before rounding.

    Args:
        records: (n,) of ``schema.unrounded_rows``.
        keys: (2n,) int64 that tell their anchors, then their positives.
        wanted: (m,) int64.

    Returns:
        Which of the wanted there are, and their vectors, float32.
    """
    order = np.argsort(keys, kind="stable")
    places = order[np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)]
    held = keys[places] == wanted
    return held, np.concatenate([records["anchor"], records["positive"]])[places[held]]
