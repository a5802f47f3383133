"""Rows of an index on disk as one array, mapped part by part: pages are read when rows are asked for."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import IndexFaultError
from ..storage.files import FileRecord
from .quantize import dequantize


def let_go(mapped: np.ndarray) -> None:
    """Give the pages of a mapped file back once its rows are copied out.

    They stay in the system's cache, but no longer count as memory of this process: one row can map megabytes around it.
    """
    if isinstance(mapped.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)


class MappedRows:
    """The rows of consecutive ``.npy`` parts, addressed by one row number (the text id).

    Args:
        path_of: Says where the file of a part is, and may fetch it.
        records: The parts, in order.
        shape: Of one row, where it is known beforehand.
        dtype: Of the parts, where it is known beforehand.
    """

    def __init__(
        self,
        path_of: Callable[[FileRecord], Path],
        records: Sequence[FileRecord],
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self._path_of, self._records, self._shape, self._dtype = path_of, records, shape, dtype
        self._starts = np.concatenate([[0], np.cumsum([record.rows for record in records])]).astype(np.int64)
        self._maps: list[np.ndarray | None] = [None] * len(records)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path_of, self._records, self._shape, self._dtype)

    @property
    def _row(self) -> np.ndarray:
        """A row that shows shape and type of all."""
        known = self._shape is not None and self._dtype is not None
        return np.empty(self._shape or (), dtype=self._dtype) if known else np.empty_like(self.part(0)[0])

    def part(self, number: int) -> np.ndarray:
        """Part ``number``, mapped read-only."""
        mapped = self._maps[number]
        if mapped is None:
            record = self._records[number]
            path = self._path_of(record)
            try:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise IndexFaultError(
                    f"A part cannot be read: {error}", where=str(path), fix="run `gistcache verify`"
                ) from error
            shape = (record.rows, *(mapped.shape[1:] if self._shape is None else self._shape))
            dtype = mapped.dtype if self._dtype is None else np.dtype(self._dtype)
            if mapped.shape != shape or mapped.dtype != dtype:
                raise IndexFaultError(
                    f"A part holds {mapped.dtype} of shape {mapped.shape}, {dtype} of {shape} is recorded",
                    where=str(path),
                    fix="run `gistcache verify`",
                )
            self._maps[number] = mapped
        return mapped

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Copy rows out.

        Args:
            ids: (n,) row numbers, any order, repeats allowed.

        Returns:
            (n, ...) in the stored dtype.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self)):
            raise IndexFaultError(
                f"A text id is outside the index (0 to {len(self) - 1})", fix="run `gistcache verify`"
            )
        parts = np.searchsorted(self._starts, ids, side="right") - 1
        rows = np.empty((len(ids), *self._row.shape), dtype=self._row.dtype)
        for number in np.unique(parts):
            chosen = parts == number
            part = self.part(number)
            rows[chosen] = part[ids[chosen] - self._starts[number]]
            let_go(part)
        return rows


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
        return self.rows.part(0).shape[1]

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Text ids (n,) -> unit vectors (n, dim): float16, or float32 where int8 is stored."""
        return dequantize(self.rows.take(ids))

    def blocks(self, start: int, stop: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield text ids and their vectors over ``start .. stop``, in blocks of at most ``size``."""
        for begin in range(start, stop, size):
            ids = np.arange(begin, min(begin + size, stop))
            yield ids, self.take(ids)


def temporary_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Make an array of zeros in an unnamed temporary file, for what grows with the index and may not fit in memory."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
