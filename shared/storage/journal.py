"""Shards written whole, and the journal that lists those an unfinished build has committed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import atomic_write, sha256_of
from .integrity import FileRecord, content_fault

logger = logging.getLogger(__name__)


def commit(root: Path, path: Path, rows: int, write: Callable[[Path], object]) -> FileRecord:
    """Write a file under ``root`` whole, by ``write(temporary path)``, and return its record."""
    with atomic_write(path) as new:
        write(new)
        return FileRecord(path.relative_to(root).as_posix(), rows, new.stat().st_size, sha256_of(new))


def commit_rows(root: Path, path: Path, rows: pa.Table | np.ndarray) -> FileRecord:
    """Commit a table as one Parquet file, or an array, whose first axis is rows, as one ``.npy`` file."""
    return commit(root, path, len(rows), partial(write_rows, rows))


def write_rows(rows: pa.Table | np.ndarray, to: Path) -> None:
    """Write a table as Parquet, an array without pickle."""
    if isinstance(rows, pa.Table):
        pq.write_table(rows, to, compression="zstd")
    else:
        with to.open("wb") as file:
            np.save(file, np.ascontiguousarray(rows), allow_pickle=False)


class Journal:
    """The files that an unfinished build has committed: one checksummed JSON line each, appended and fsynced.

    A line that a crash cut short is dropped, and so is a record whose file no longer matches it.

    Args:
        path: The journal's file.
        root: The folder that its records are relative to.
        remote_sizes: Bytes of each file, by name, in the object storage that the build goes to, if to any. A record
            counts where the storage has its file, whether it is here too or not.
        push: Called with the journal's path after each new record.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        remote_sizes: Mapping[str, int] | None = None,
        push: Callable[[Path], object] | None = None,
    ) -> None:
        self.path, self.root, self._remote_sizes, self._push = path, root, remote_sizes, push
        self.done = {record.path: record for record in self._intact()}

    def _intact(self) -> Iterator[FileRecord]:
        for fields in intact_lines(self.path.read_bytes() if self.path.exists() else b""):
            record = FileRecord.from_json(fields)
            if fault := self._fault(record):
                temporary = record.path.startswith("building/")  # deleted once the build no longer needs it
                logger.log(logging.INFO if temporary else logging.WARNING, "%s: this shard is made again", fault)
            else:
                yield record

    def _fault(self, record: FileRecord) -> str | None:
        fault = content_fault(self.root, record)
        if self._remote_sizes is None:
            return fault
        if fault:  # it may be another build's; the storage's is fetched when it is needed
            (self.root / record.path).unlink(missing_ok=True)
        return None if self._remote_sizes.get(record.path) == record.bytes else f"{record.path}: not in the storage"

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
        if self._push:
            self._push(self.path)


def checksummed_line(content: dict[str, Any]) -> bytes:
    """A JSON object in one line, after the first digits of the line's SHA-256 and a space."""
    text = json.dumps(content, sort_keys=True).encode()
    return _line_checksum(text) + b" " + text


def intact_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """The objects of those lines whose checksum is right; a line that a crash cut short is skipped."""
    for line in data.split(b"\n"):
        digits, _, text = line.partition(b" ")
        if text and digits == _line_checksum(text):
            yield json.loads(text)


def _line_checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
