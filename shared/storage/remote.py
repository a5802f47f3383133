"""Folders in object storage, or wherever else fsspec reaches: whole files by name.

The protocol, its credentials, retries and back-off are those of fsspec's file systems (``s3fs`` for ``s3://``).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..errors import IndexFaultError, StorageError, first_line
from ..progress import step
from .files import atomic_write, sha256_of
from .integrity import FileRecord

TRANSFERS = 8


def is_url(locator: str | Path) -> bool:
    """Whether it names something else than a local path."""
    return "://" in str(locator)


@dataclass(frozen=True)
class Remote:
    """A folder in object storage; names are relative to it, and "" is the folder itself.

    Every method raises StorageError where the storage does not do what it is asked to.
    """

    url: str

    @classmethod
    def of(cls, url: str | Path) -> Remote:
        """The remote folder of a URL; StorageError where no file system for such URLs is installed."""
        remote = cls(str(url).rstrip("/"))
        with remote._at("open", ""):
            return remote

    @contextmanager
    def _at(self, verb: str, name: str) -> Iterator[tuple[AbstractFileSystem, str]]:
        """The file system, whose connections fsspec reuses, and the path of a file in it."""
        where = f"{self.url}/{name}".rstrip("/")
        try:
            filesystem, root = url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            fix = "install gistcache[s3] for s3://, or the fsspec package of that storage"
            raise StorageError(f"There is no file system for this URL here: {error}", where=where, fix=fix) from error
        try:
            yield filesystem, f"{root}/{name}".rstrip("/")
        except Exception as error:  # each file system has its own family of errors
            raise StorageError(
                f"The storage did not {verb} the file: {first_line(error)}",
                where=where,
                fix="check the URL, the credentials and the network, then run the same command again",
            ) from error

    def put(self, path: Path, name: str) -> None:
        """Upload a file whole: readers see the old object or the new one."""
        with self._at("upload", name) as (filesystem, to):
            filesystem.put_file(str(path), to)

    def get(self, name: str, to: Path) -> None:
        """Download a file to a path that nobody reads yet."""
        with self._at("download", name) as (filesystem, source):
            filesystem.get_file(source, str(to))

    def fetch(self, root: Path, record: FileRecord) -> FileRecord:
        """Download a recorded file into a folder, whole; IndexFaultError where its checksum is not the recorded one."""
        with atomic_write(root / record.path, locked=False) as partial:
            self.get(record.path, partial)
            if partial.stat().st_size != record.bytes or sha256_of(partial) != record.sha256:
                raise IndexFaultError(
                    "A file in the storage is not the one that the manifest records",
                    where=f"{self.url}/{record.path}",
                    fix="if the index is being written again, wait for that; else upload it again",
                )
        return record

    def fetch_all(self, root: Path, records: list[FileRecord]) -> None:
        """As ``fetch``, several files at a time, with a progress bar."""
        with (
            step("fetch index", sum(record.bytes for record in records), "bytes") as advance,
            ThreadPoolExecutor(TRANSFERS) as pool,
        ):
            for record in pool.map(lambda record: self.fetch(root, record), records):
                advance(record.bytes)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name, or one in a folder of this name."""
        with self._at("find", name) as (filesystem, path):
            return bool(filesystem.exists(path))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""
        with self._at("list", "") as (filesystem, root):
            files = dict(filesystem.find(root, detail=True))
            return {path.removeprefix(root).lstrip("/"): int(entry["size"]) for path, entry in files.items()}

    def remove(self, name: str) -> None:
        """Delete a file or everything under a folder, if it is there."""
        with self._at("delete", name) as (filesystem, path):
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)
