"""Whether files are those that a manifest vouches for: small ones are read on every opening, large ones once a machine.

What has been read and found right is remembered in the user's cache folder, by size, time of change and inode.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import IndexFaultError
from .checksummed_json import DAMAGED_FIX
from .files import FileRecord, content_fault, size_fault, write_json
from .remote import cache_folder

logger = logging.getLogger(__name__)

SMALL_BYTES = 2**20
READERS = 4
FAULTS_SHOWN = 20

Stamp = list[int]  # bytes, time of change in nanoseconds, inode


def refuse_damaged(root: Path, records: Sequence[FileRecord], *, verify: bool | None = None) -> None:
    """Raise IndexFaultError naming each file of an index that ``damage`` finds; see there."""
    if faults := damage(root, records, verify=verify):
        more = [f"... and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise IndexFaultError(
            "The index is damaged:\n    " + "\n    ".join(faults[:FAULTS_SHOWN] + more),
            where=str(root),
            fix=DAMAGED_FIX,
        )


def damage(root: Path, records: Sequence[FileRecord], *, verify: bool | None = None) -> list[str]:
    """What is wrong with committed files: missing, of another size, of another checksum; one line each.

    Args:
        root: The folder that the records are relative to.
        records: What was committed.
        verify: True reads every file, False those of up to SMALL_BYTES, None also the larger ones that this machine has
            not read since they were last written.
    """
    faults = [fault for record in records if (fault := size_fault(root, record))]
    if faults:
        return faults
    small = [record for record in records if record.bytes <= SMALL_BYTES]
    large = [record for record in records if record.bytes > SMALL_BYTES and verify is not False]
    return _content_faults(root, small) + _large_faults(root, large, again=bool(verify))


def _large_faults(root: Path, records: Sequence[FileRecord], *, again: bool) -> list[str]:
    memory = _memory_file(root, records)
    stamps = {record.path: _stamp(root / record.path) for record in records}
    known = {} if again else _remembered(memory)
    unread = [record for record in records if known.get(record.path) != stamps[record.path]]
    faults = _content_faults(root, unread)
    if unread and not faults:
        try:
            write_json(memory, stamps, locked=False)
        except OSError as error:
            logger.info("the files found right cannot be remembered: %s", error)
    return faults


def _content_faults(root: Path, records: Iterable[FileRecord]) -> list[str]:
    with ThreadPoolExecutor(READERS) as pool:
        return [fault for fault in pool.map(lambda record: content_fault(root, record), records) if fault]


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _memory_file(root: Path, records: Sequence[FileRecord]) -> Path:
    """Where it is remembered; another folder and other contents have another place."""
    table = sorted((record.path, record.sha256) for record in records)
    return cache_folder("checked", json.dumps([str(root.resolve()), table])).with_suffix(".json")


def _remembered(memory: Path) -> dict[str, Stamp]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
