"""One part of an index: written whole or not at all, recorded with its checksum, checked before it is reused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import IndexFaultError

logger = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """A committed file: path relative to the index (POSIX), rows, bytes and SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> FileRecord:
        """Read a record back, refusing paths that would leave the index folder."""
        try:
            record = cls(fields["path"], count_of(fields, "rows"), count_of(fields, "bytes"), fields["sha256"])
            path = PurePosixPath(record.path)
            plain = isinstance(record.sha256, str) and SHA256.fullmatch(record.sha256) and "\0" not in record.path
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFaultError("A part record is not readable", where=repr(fields)[:200]) from error
        if not plain or path.is_absolute() or ".." in path.parts or "\\" in record.path or not path.name:
            raise IndexFaultError("A part record names no path inside the index folder", where=repr(fields)[:200])
        return record


def count_of(fields: dict[str, Any], name: str) -> int:
    """A count read from JSON; ValueError where it is none."""
    value = fields[name]
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"{name} is {value!r}, no count")
    return value


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path, *, locked: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, it becomes ``path`` durably.

    Args:
        path: The file.
        locked: Whether a lock keeps other writers away; without one the temporary name is this process's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = "" if locked else f".{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(path.name + own + PARTIAL_SUFFIX)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, content: Any, *, locked: bool = True) -> None:  # noqa: ANN401 (any JSON value)
    """Write ``content`` as JSON, whole or not at all; see ``atomic_write``."""
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    with atomic_write(path, locked=locked) as partial:  # half a surrogate becomes JSON's own escape
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(root: Path, path: Path, rows: int, write: Callable[[Path], None]) -> FileRecord:
    """Write one part through ``write(temporary path)`` and return its record.

    Args:
        root: The index folder; the record's path is relative to it.
        path: Where the part belongs.
        rows: Rows the part holds, for the record.
        write: Writes the whole part to the path it is given.
    """
    with atomic_write(path) as partial:
        write(partial)
        record = FileRecord(path.relative_to(root).as_posix(), rows, partial.stat().st_size, sha256_of(partial))
    return record


def commit_table(root: Path, path: Path, table: pa.Table) -> FileRecord:
    """Commit an Arrow table as one Parquet part."""
    return commit(root, path, table.num_rows, lambda to: pq.write_table(table, to, compression="zstd"))


def commit_array(root: Path, path: Path, array: np.ndarray) -> FileRecord:
    """Commit a NumPy array, first axis rows, as one ``.npy`` part without pickle."""

    def write(to: Path) -> None:
        with to.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)

    return commit(root, path, len(array), write)


def size_fault(root: Path, record: FileRecord) -> str | None:
    """Say what is wrong with the part's presence or size; None when nothing is."""
    path = root / record.path
    if not path.is_file():
        return f"{record.path}: missing"
    if (size := path.stat().st_size) != record.bytes:
        return f"{record.path}: {size} bytes, {record.bytes} recorded"
    return None


def content_fault(root: Path, record: FileRecord) -> str | None:
    """As ``size_fault``, and the checksum too: reads the whole part."""
    if fault := size_fault(root, record):
        return fault
    if sha256_of(root / record.path) != record.sha256:
        return f"{record.path}: checksum differs from the one recorded"
    return None


class Journal:
    """Parts finished so far by an unfinished build: one JSON line a part, appended and fsynced.

    Each line carries its own checksum. A line cut short by a crash is dropped, and so is a record whose file no longer
    matches it.
    """

    def __init__(self, path: Path, root: Path, elsewhere: Mapping[str, int] | None = None) -> None:
        """Read what is there; ``elsewhere`` has the sizes of files that a storage holds, here or not."""
        self.path, self.root, self._elsewhere = path, root, elsewhere or {}
        self.done = {record.path: record for record in self._intact()}

    def _intact(self) -> Iterator[FileRecord]:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().split(b"\n"):
            checksum, _, text = line.partition(b" ")
            if checksum.decode("ascii", "replace") != _line_checksum(text):
                continue
            record = FileRecord.from_json(json.loads(text))
            here = (self.root / record.path).exists()
            if not here and self._elsewhere.get(record.path) == record.bytes:
                yield record
            elif fault := content_fault(self.root, record):
                passing = record.path.startswith("building/")  # given up once the next one was there
                logger.log(logging.INFO if passing else logging.WARNING, "%s: this part is made again", fault)
            else:
                yield record

    def keep_or_make(self, path: Path, make: Callable[[], FileRecord]) -> FileRecord:
        """Return the record of a part already committed, or make it and record it."""
        name = path.relative_to(self.root).as_posix()
        if name not in self.done:
            self.record(make())
        return self.done[name]

    def record(self, record: FileRecord) -> None:
        """Append a committed part, durably."""
        # A crash may have cut the last line short: a line break first keeps the new record whole.
        text = json.dumps(asdict(record), sort_keys=True).encode()
        with self.path.open("ab") as file:
            file.write(b"\n" + _line_checksum(text).encode() + b" " + text)
            file.flush()
            os.fsync(file.fileno())
        self.done[record.path] = record


def _line_checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
