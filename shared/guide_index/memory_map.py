"""Rows of an index on disk as one array, mapped shard by shard: pages are read when rows are asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import IndexFaultError
from ..storage.integrity import FileRecord
from .quantize import dequantize

VERIFY_FIX = "run `gistcache verify`"


class MappedRows:
    """The rows of consecutive ``.npy`` shards, addressed by one row number (the text id, the pair id).

    Args:
        path_of: Returns the file of a shard, and may fetch it.
        records: The shards, in order.
        shape: Of one row, where it is known beforehand.
        dtype: Of the shards, where it is known beforehand.
    """

    def __init__(
        self,
        path_of: Callable[[FileRecord], Path],
        records: Sequence[FileRecord],
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self._path_of, self._records, self._shape, self._dtype = path_of, records, shape, dtype
        self._starts = np.cumsum([0, *(record.rows for record in records)])
        self._maps: list[np.ndarray | None] = [None] * len(records)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path_of, self._records, self._shape, self._dtype)

    def shard(self, number: int) -> np.ndarray:
        """Shard ``number``, (rows, ...), mapped read-only."""
        mapped = self._maps[number]
        if mapped is None:
            mapped = self._maps[number] = self._map(self._records[number])
        return mapped

    def _map(self, record: FileRecord) -> np.ndarray:
        path = self._path_of(record)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise IndexFaultError(f"A shard cannot be read: {error}", where=str(path), fix=VERIFY_FIX) from error
        shape = (record.rows, *(mapped.shape[1:] if self._shape is None else self._shape))
        dtype = mapped.dtype if self._dtype is None else np.dtype(self._dtype)
        if mapped.shape != shape or mapped.dtype != dtype:
            raise IndexFaultError(
                f"A shard holds {mapped.dtype} of shape {mapped.shape}, {dtype} of {shape} is recorded",
                where=str(path),
                fix=VERIFY_FIX,
            )
        return mapped

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Copy rows out.

        Args:
            ids: (n,) row numbers, any order, repeats allowed.

        Returns:
            (n, ...) in the stored dtype.

        Raises:
            IndexFaultError: A row number is outside the index, or a shard cannot be read.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self)):
            raise IndexFaultError(f"A text id is outside the index (0 to {len(self) - 1})", fix=VERIFY_FIX)
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        rows = self._empty(len(ids))
        for number in np.unique(numbers):
            chosen = numbers == number
            rows[chosen] = self.shard(number)[ids[chosen] - self._starts[number]]
        return rows

    def _empty(self, count: int) -> np.ndarray:
        if self._shape is not None and self._dtype is not None:
            return np.empty((count, *self._shape), dtype=self._dtype)
        first = self.shard(0)
        return np.empty((count, *first.shape[1:]), dtype=first.dtype)


class MappedVectors:
    """Guide vectors by text id, whatever number type they are stored in.

    Args:
        rows: The vectors as they are stored.
    """

    def __init__(self, rows: MappedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.rows.shard(0).shape[1]

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Text ids (n,) -> unit vectors (n, dim): float16, or float32 where int8 is stored."""
        return dequantize(self.rows.take(ids))


def temporary_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Make an array of zeros in an unnamed temporary file, for what grows with the index and may not fit in memory."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
