"""One writer a folder: a lock that names its holder and that the operating system drops when the holder dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import FolderLockedError, IndexFaultError
from .files import write_json
from .integrity import parse_object

HOLDER = "holder.json"


@contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder, which is created if need be, for writing; ``wait`` until another holder has finished.

    Raises:
        FolderLockedError: Another live process holds the lock; the message names host, process and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FolderLockedError(
            "Another process is writing to this folder", where=_holder(folder), fix="wait for it, or stop it first"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(folder / HOLDER, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        lock.release()


def was_held(folder: Path) -> bool:
    """Whether a folder's lock is held now, or was held before."""
    return (folder / HOLDER).is_file()


def _holder(folder: Path) -> str:
    try:
        holder = parse_object(folder / HOLDER, "holder")
    except (OSError, IndexFaultError):  # it has not written its name yet
        return str(folder)
    return f"{folder}, held by process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
