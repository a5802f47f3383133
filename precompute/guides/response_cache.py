"""Answers of an endpoint, kept on disk until the index is finished, so that nothing is paid for twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from ...shared.errors import IndexFaultError
from ...shared.guide_index.layout import Layout
from ...shared.storage.remote import is_url
from ..output.store import Store

NAME = "answers.sqlite"
UPLOAD_SECONDS, UPLOAD_SHARE = 30.0, 0.1  # least time between uploads, and their largest share of all time
INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?)"


def answers_in(index: str | Path | None) -> Path | None:
    """The file of an unfinished index's answers, if it has any."""
    path = Layout(Path(index)).building / NAME if index and not is_url(index) else None
    return path if path and path.exists() else None


class Answers:
    """Vectors by the key of what was sent: rows of one SQLite file beside the journal, deleted with it.

    An answer is committed before anything else is done with it. Where the index is built for a URL, the file goes up
    from time to time, and another machine that takes the build up begins with it. Threads may share an object.

    Args:
        store: The index that is being built.
        older: ``answers_in`` another unfinished index, which are copied.
    """

    def __init__(self, store: Store, older: Path | None = None) -> None:
        self._store, self._older, self._path = store, older, store.layout.building / NAME
        self._lock, self._imported, self._next_upload = threading.Lock(), False, time.monotonic() + UPLOAD_SECONDS

    def read(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors, (D,) float32, of those keys that have one."""
        select = "SELECT vector FROM answers WHERE key = ?"
        with self._database() as database:
            rows = {key: database.execute(select, (key,)).fetchone() for key in keys}
        return {key: np.frombuffer(row[0], dtype="<f4") for key, row in rows.items() if row}

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Commit an answer: n keys of 16 bytes, and their vectors, (n, D) float32."""
        with self._database() as database:
            database.executemany(INSERT, zip(keys, map(bytes, vectors.astype("<f4")), strict=True))
            database.commit()
        if time.monotonic() > self._next_upload:
            self.upload()

    def upload(self) -> None:
        """Put all answers into the storage, if the index goes there."""
        if self._store.remote:
            with self._lock:  # between two commits the file is whole
                started = time.monotonic()
                self._store.remote.put(self._path, f"building/{NAME}")
                ended = time.monotonic()
                self._next_upload = ended + max(UPLOAD_SECONDS, (ended - started) / UPLOAD_SHARE)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time; it stays open no longer, as the folder is deleted in the end."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with closing(sqlite3.connect(self._path)) as database:
                    if not self._imported:
                        self._import(database)
                    yield database
            except sqlite3.DatabaseError as error:
                raise IndexFaultError(
                    f"The endpoint's answers cannot be read or written: {error}",
                    where=str(self._path),
                    fix="check the disk; if the file is damaged, delete it: its texts are then sent again",
                ) from error

    def _import(self, database: sqlite3.Connection) -> None:
        """Copy the answers of the storage, and those of the older index."""
        database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        remote, copy = self._store.remote, self._path.with_suffix(".copy")
        if remote and remote.exists(f"building/{NAME}"):
            remote.get(f"building/{NAME}", copy)
        for path in (copy, self._older):
            if path and path.exists():
                with closing(sqlite3.connect(path)) as other:
                    database.executemany(INSERT, other.execute("SELECT key, vector FROM answers"))
        database.commit()
        self._imported = True
