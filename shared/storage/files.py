"""Files written whole or not at all, a file's SHA-256, and the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"


@contextmanager
def atomic_write(path: Path, *, locked: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends without an error, rename it to ``path`` durably.

    Args:
        path: The file; its folder is created.
        locked: Whether a lock keeps other writers away. Without one, the temporary name is unique to this thread.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = "" if locked else f".{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(path.name + writer + PARTIAL_SUFFIX)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # makes the new name durable
    os.close(folder)


def write_json(path: Path, content: Any, *, locked: bool = True) -> None:  # noqa: ANN401 (any JSON value)
    """Write ``content`` as JSON, whole or not at all; see ``atomic_write``."""
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    with atomic_write(path, locked=locked) as partial:  # half a surrogate becomes JSON's own escape
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(purpose: str, key: str) -> Path:
    """The folder of the user's cache for one purpose and one key, a URL for example; it may not exist yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gistcache" / purpose / hashlib.sha256(key.encode()).hexdigest()[:24]
