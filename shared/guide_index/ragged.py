"""Rows of different lengths in one flat array: where each begins, and how long it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import IndexFaultError


def runs(starts: np.ndarray, counts: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of all values of some rows of a flat array, row after row.

    Args:
        starts: (n,) where each row begins.
        counts: (n,) how many values it has.
        limit: How long the flat array is; IndexFaultError where a row lies outside.

    Returns:
        The places, and for each the position in ``starts`` it belongs to; both (m,) int64.
    """
    if ((starts < 0) | (counts < 0) | (counts > limit) | (starts > limit - counts)).any():
        raise IndexFaultError("The index points outside itself", fix="run `gistcache verify`")
    owner = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[owner] + within, owner


class Ragged(NamedTuple):
    """Rows of different lengths, flat: row i is ``values[offsets[i]:offsets[i + 1]]``; both of any integer type."""

    offsets: np.ndarray
    values: np.ndarray

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of the given rows, and for each value the position in ``numbers`` it belongs to."""
        starts = self.offsets[numbers].astype(np.int64)
        places, owner = runs(starts, self.offsets[numbers + 1] - starts, len(self.values))
        return self.values[places], owner


def padded(lists: pa.ChunkedArray, width: int, fill: float, dtype: type) -> np.ndarray:
    """Lists as rows of one width: (n, width), ``fill`` where a list is shorter."""
    column = lists.combine_chunks()
    rows = np.full((len(column), width), fill, dtype=dtype)
    rows[np.arange(width) < column.value_lengths().to_numpy()[:, None]] = column.flatten().to_numpy()
    return rows


def as_lists(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """Values in a row, cut into lists of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
