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
from .layout import RowForm
from .quantize import dequantize

VERIFY_FIX = "run `gistcache verify`"


class MappedRows:
    """The rows of consecutive ``.npy`` shards, addressed by one row number (the text id, the pair id).

    Args:
        path_of: Returns the file of a shard, and may fetch it.
        records: The shards, in order.
        form: Shape and type of a row; default: what the shards have.
    """

    def __init__(
        self, path_of: Callable[[FileRecord], Path], records: Sequence[FileRecord], form: RowForm | None = None
    ) -> None:
        self._path_of, self._records, self._form = path_of, records, form
        self._starts = np.cumsum([0, *(record.rows for record in records)])
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path_of, self._records, self._form)

    def shard(self, number: int) -> np.ndarray:
        """Shard ``number``, (rows, ...), mapped read-only."""
        if number not in self._maps:
            self._maps[number] = self._map(self._records[number])
        return self._maps[number]

    def _map(self, record: FileRecord) -> np.ndarray:
        path = self._path_of(record)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise IndexFaultError(f"A shard cannot be read: {error}", where=str(path), fix=VERIFY_FIX) from error
        row_shape, dtype = self._form or (mapped.shape[1:], mapped.dtype)
        if mapped.shape != (shape := (record.rows, *row_shape)) or mapped.dtype != np.dtype(dtype):
            what = f"A shard holds {mapped.dtype} of shape {mapped.shape}, {np.dtype(dtype)} of {shape} is recorded"
            raise IndexFaultError(what, where=str(path), fix=VERIFY_FIX)
        return mapped

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Copy rows out: (n,) row numbers, in any order -> (n, ...) in the stored dtype.

        Raises:
            IndexFaultError: A row number is outside the index, or a shard cannot be read.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self)):
            raise IndexFaultError(f"A text id is outside the index (0 to {len(self) - 1})", fix=VERIFY_FIX)
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        shape, dtype = self._form or (self.shard(0).shape[1:], self.shard(0).dtype)
        rows = np.empty((len(ids), *shape), dtype)
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            rows[chosen] = self.shard(number)[ids[chosen] - self._starts[number]]
        return rows


class MappedVectors:
    """Guide vectors by text id, read as unit vectors whatever number type they are stored in."""

    def __init__(self, rows: MappedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._rows.shard(0).shape[1]

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Text ids (n,) -> unit vectors (n, dim): float16, or float32 where int8 is stored."""
        return dequantize(self._rows.take(ids))


def temporary_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Make an array of zeros in an unnamed temporary file, for what grows with the index and may not fit in memory."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
