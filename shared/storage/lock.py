"""One writer a folder: a lock that names its holder and that the operating system drops when the holder dies."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import FolderLockedError
from .files import write_json

HOLDER = "holder.json"


@contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock ``folder`` for writing.

    Args:
        folder: The folder; it is created if it does not exist.
        wait: Whether to wait until another holder has finished.

    Raises:
        FolderLockedError: Another live process holds the lock; the message names host, process and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / HOLDER
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FolderLockedError(
            "Another process is writing to this folder", where=_describe(holder), fix="wait for it, or stop it first"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(holder, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        lock.release()


def was_held(folder: Path) -> bool:
    """Whether a folder's lock is held now, or was held before."""
    return (folder / HOLDER).is_file()


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f"{holder.parent}, held by process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return str(holder.parent)
