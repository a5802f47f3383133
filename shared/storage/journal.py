"""Shards written whole, and the journal that lists those an unfinished build has committed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import atomic_write, sha256_of
from .integrity import FileRecord, checksummed_line, content_fault, intact_lines

logger = logging.getLogger(__name__)


def commit(root: Path, path: Path, rows: int, write: Callable[[Path], None]) -> FileRecord:
    """Write one file atomically and return its record.

    Args:
        root: The index folder; the record's path is relative to it.
        path: Where the file belongs.
        rows: Rows of the file, for the record.
        write: Writes the whole file to the temporary path that it is given.
    """
    with atomic_write(path) as partial:
        write(partial)
        return FileRecord(path.relative_to(root).as_posix(), rows, partial.stat().st_size, sha256_of(partial))


def commit_table(root: Path, path: Path, table: pa.Table) -> FileRecord:
    """Commit an Arrow table as one Parquet file."""
    return commit(root, path, table.num_rows, lambda to: pq.write_table(table, to, compression="zstd"))


def commit_array(root: Path, path: Path, array: np.ndarray) -> FileRecord:
    """Commit a NumPy array, whose first axis is rows, as one ``.npy`` file without pickle."""

    def write(to: Path) -> None:
        with to.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)

    return commit(root, path, len(array), write)


class Journal:
    """The shards that an unfinished build has committed: one checksummed JSON line each, appended and fsynced.

    A line that a crash cut short is dropped, and so is a record whose file no longer matches it.

    Args:
        path: The journal's file.
        root: The folder that its records are relative to.
        remote_sizes: Bytes of each file, by name, that an object storage holds, whether it is here too or not.
    """

    def __init__(self, path: Path, root: Path, remote_sizes: Mapping[str, int] | None = None) -> None:
        self.path, self.root, self._remote_sizes = path, root, remote_sizes or {}
        self.done = {record.path: record for record in self._intact()}

    def _intact(self) -> Iterator[FileRecord]:
        for fields in intact_lines(self.path.read_bytes() if self.path.exists() else b""):
            record = FileRecord.from_json(fields)
            if not (self.root / record.path).exists() and self._remote_sizes.get(record.path) == record.bytes:
                yield record
            elif fault := content_fault(self.root, record):
                temporary = record.path.startswith("building/")  # deleted once the build no longer needs it
                logger.log(logging.INFO if temporary else logging.WARNING, "%s: this shard is made again", fault)
            else:
                yield record

    def keep_or_make(self, path: Path, make: Callable[[], FileRecord]) -> FileRecord:
        """Return the record of a shard already committed, or make it and record it."""
        name = path.relative_to(self.root).as_posix()
        if name not in self.done:
            self.record(make())
        return self.done[name]

    def record(self, record: FileRecord) -> None:
        """Append a committed shard, durably."""
        with self.path.open("ab") as file:
            file.write(b"\n" + checksummed_line(asdict(record)))  # the line break ends a line that a crash cut short
            file.flush()
            os.fsync(file.fileno())
        self.done[record.path] = record
