"""Rows of different lengths in two flat arrays, in as few bits as their numbers need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """Rows of different lengths, flat: row i is ``values[offsets[i]:offsets[i + 1]]``; both of any integer type."""

    offsets: np.ndarray
    values: np.ndarray

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of the given rows, and for each value the position in ``numbers`` it belongs to."""
        starts = self.offsets[numbers].astype(np.int64)
        counts = self.offsets[numbers + 1] - starts
        owner = np.repeat(np.arange(len(numbers)), counts)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.values[starts[owner] + within], owner


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(rows + 1,) offsets of rows of so many values."""
    return compact(np.concatenate([[0], np.cumsum(counts)]))


def compact(numbers: np.ndarray) -> np.ndarray:
    """A copy in 32 bits where the numbers fit: what a trainer holds of every text and pair should be little."""
    return numbers.astype(np.int32 if numbers.max(initial=0) <= np.iinfo(np.int32).max else np.int64)
