"""Checksums: JSON that carries its own, records of files with theirs, and the comparison of files with their records.

Small files are read on every comparison. Large ones are read once a machine: that they were intact is remembered in
the user's cache folder, by size, time of change and inode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import IndexFaultError
from .files import cache_folder, sha256_of, write_json

logger = logging.getLogger(__name__)

CHECKSUM_KEY = "sha256_of_the_rest"
DAMAGED_FIX = "delete the folder and make it again, or copy it again from where it came"
SHA256 = re.compile("[0-9a-f]{64}")
MOST_COUNTED = 2**62
SMALL_BYTES = 2**20
READERS = 4
FAULTS_SHOWN = 20


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object with sorted keys, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_checksummed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object and its checksum, whole or not at all."""
    write_json(path, content | {CHECKSUM_KEY: checksum(content)})


def read_checksummed(path: Path, name: str) -> dict[str, Any]:
    """Read what ``write_checksummed`` wrote, called ``name`` in messages; IndexFaultError where it is damaged."""
    content = parse_object(path, name)
    if content.pop(CHECKSUM_KEY, None) != checksum(content):
        what = f"The {name} is damaged: its checksum differs from the one it carries"
        raise IndexFaultError(what, where=str(path), fix=DAMAGED_FIX)
    return content


def parse_object(path: Path, name: str) -> dict[str, Any]:
    """Read the JSON object in a file, without a checksum; IndexFaultError where it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        where = f"{path}: {error}"
        raise IndexFaultError(f"The {name} is not readable as JSON", where=where, fix=DAMAGED_FIX) from error
    if not isinstance(content, dict):
        raise IndexFaultError(f"The {name} is not a JSON object", where=str(path), fix=DAMAGED_FIX)
    return content


@dataclass(frozen=True)
class FileRecord:
    """A committed file: path relative to its root folder (POSIX), rows, bytes and SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> FileRecord:
        """Read a record back; IndexFaultError where a field is impossible or the path would leave the folder."""
        try:
            record = cls(fields["path"], fields["rows"], fields["bytes"], fields["sha256"])
            path = PurePosixPath(record.path)
            counts = all(type(count) is int and 0 <= count < MOST_COUNTED for count in (record.rows, record.bytes))
            usable = counts and SHA256.fullmatch(record.sha256)
        except (KeyError, TypeError) as error:
            raise IndexFaultError("A file record is not readable", where=repr(fields)[:200]) from error
        if not usable or path.is_absolute() or ".." in path.parts or not path.name or {"\0", "\\"} & set(record.path):
            raise IndexFaultError("A file record names no path inside the index folder", where=repr(fields)[:200])
        return record


def size_fault(root: Path, record: FileRecord) -> str | None:
    """Say that a file is missing or of another size than recorded; None where it is neither."""
    path = root / record.path
    if not path.is_file():
        return f"{record.path}: missing"
    if (size := path.stat().st_size) != record.bytes:
        return f"{record.path}: {size} bytes, {record.bytes} recorded"
    return None


def content_fault(root: Path, record: FileRecord) -> str | None:
    """As ``size_fault``, and compare the checksum too, which reads the whole file."""
    if fault := size_fault(root, record):
        return fault
    if sha256_of(root / record.path) != record.sha256:
        return f"{record.path}: checksum differs from the one recorded"
    return None


def refuse_damaged(root: Path, records: Sequence[FileRecord], *, verify: bool | None = None) -> None:
    """Raise IndexFaultError naming the files that ``damage`` finds; see there."""
    refuse_faults(damage(root, records, verify=verify), str(root))


def refuse_faults(faults: list[str], where: str) -> None:
    """Raise IndexFaultError naming the first faults of an index, if there are any."""
    if faults:
        more = [f"... and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        lines = "\n    ".join(faults[:FAULTS_SHOWN] + more)
        raise IndexFaultError(f"The index is damaged:\n    {lines}", where=where, fix=DAMAGED_FIX)


def damage(root: Path, records: Sequence[FileRecord], *, verify: bool | None = None) -> list[str]:
    """Compare files with their records; returns one line for each that is missing or differs in size or checksum.

    ``verify=True`` reads every file, False those of up to SMALL_BYTES, None also the larger ones that this machine has
    not read since they were last written.
    """
    if faults := [fault for record in records if (fault := size_fault(root, record))]:
        return faults
    small = [record for record in records if record.bytes <= SMALL_BYTES]
    large = [record for record in records if record.bytes > SMALL_BYTES and verify is not False]
    return _content_faults(root, small) + _large_faults(root, large, again=bool(verify))


def _large_faults(root: Path, records: Sequence[FileRecord], *, again: bool) -> list[str]:
    table = sorted((record.path, record.sha256) for record in records)  # other contents have another memory
    memory = cache_folder("checked", json.dumps([str(root.resolve()), table])).with_suffix(".json")
    stamps = {record.path: _stamp(root / record.path) for record in records}
    try:
        verified = {} if again else parse_object(memory, "memory")
    except (OSError, IndexFaultError):
        verified = {}
    unread = [record for record in records if verified.get(record.path) != stamps[record.path]]
    faults = _content_faults(root, unread)
    if unread and not faults:
        try:
            write_json(memory, stamps, locked=False)
        except OSError as error:
            logger.info("what was verified cannot be remembered: %s", error)
    return faults


def _content_faults(root: Path, records: Iterable[FileRecord]) -> list[str]:
    with ThreadPoolExecutor(READERS) as pool:
        return [fault for fault in pool.map(lambda record: content_fault(root, record), records) if fault]


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
