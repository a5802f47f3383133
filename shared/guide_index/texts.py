"""Texts of an index by id."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .tables import read_table

if TYPE_CHECKING:
    from .guide_index import GuideIndex

CACHED_TEXT_PARTS = 32


class Texts:
    """Texts by id, with the last parts used kept decoded: consecutive pairs have nearby ids."""

    def __init__(self, index: GuideIndex) -> None:
        records = index.manifest.shards["texts"]
        self._starts = np.concatenate([[0], np.cumsum([record.rows for record in records])])

        @lru_cache(CACHED_TEXT_PARTS)
        def part(number: int) -> pa.Array:
            texts = read_table(index.layout.root, records[number], "texts", ["text"])["text"]
            return texts.cast(pa.large_string()).combine_chunks()

        self._part = part

    def take(self, ids: np.ndarray) -> pa.Array:
        """(n,) ids -> n texts, in order."""
        order = np.argsort(ids, kind="stable")
        numbers = np.searchsorted(self._starts, ids[order], side="right") - 1
        chunks = [
            self._part(int(number)).take(pa.array(ids[order][numbers == number] - self._starts[number]))
            for number in np.unique(numbers)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(chunks).take(pa.array(back))
