"""Folders in object storage, or wherever else fsspec reaches: whole files by name.

The protocol, its credentials, retries and back-off are those of fsspec's file systems (``s3fs`` for ``s3://``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..errors import IndexFaultError, StorageError, first_line
from ..progress import step
from .files import atomic_write, sha256_of
from .integrity import FileRecord

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TRANSFERS = 8
WAITS = (1.0, 5.0, 20.0)  # seconds before trying a whole file again, after the file system's own retries have failed


def is_url(locator: str | Path) -> bool:
    """Whether it names something else than a local path."""
    return "://" in str(locator)


@dataclass(frozen=True)
class Remote:
    """A folder in object storage; names are relative to it."""

    url: str

    @classmethod
    def of(cls, url: str | Path) -> Remote:
        """The remote folder of a URL.

        Raises:
            StorageError: No file system for such URLs is installed.
        """
        remote = cls(str(url).rstrip("/"))
        _ = remote._filesystem_and_root
        return remote

    @property
    def _filesystem_and_root(self) -> tuple[AbstractFileSystem, str]:
        """The file system, whose connections fsspec reuses, and the path in it."""
        try:
            return url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"There is no file system for this URL here: {error}",
                where=self.url,
                fix="install gistcache[s3] for s3://, or the fsspec package of that storage",
            ) from error

    def put(self, path: Path, name: str) -> None:
        """Upload a file whole: readers see the old object or the new one."""
        self._retry("upload", name, lambda fs, to: _put(fs, path, to))

    def get(self, name: str, to: Path) -> None:
        """Download a file to a path that nobody reads yet."""
        self._retry("download", name, lambda fs, source: fs.get_file(source, str(to)))

    def fetch(self, root: Path, record: FileRecord) -> FileRecord:
        """Download a recorded file into a folder, whole, and compare its checksum.

        Raises:
            IndexFaultError: It is not the file that was recorded.
        """
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

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""

        def list_files(fs: AbstractFileSystem, root: str) -> dict[str, int]:
            fs.invalidate_cache()
            files = dict(fs.find(root, detail=True))
            return {path.removeprefix(root).lstrip("/"): int(entry["size"]) for path, entry in files.items()}

        return self._retry("list", "", list_files)

    def remove(self, name: str) -> None:
        """Delete a file or everything under a folder, if it is there."""

        def delete(fs: AbstractFileSystem, path: str) -> None:
            fs.invalidate_cache()
            if fs.exists(path):
                fs.rm(path, recursive=True)

        self._retry("delete", name, delete)

    def _retry(self, verb: str, name: str, act: Callable[[AbstractFileSystem, str], Result]) -> Result:
        """Run ``act``; where it fails for a reason that may pass, run it again a few times."""
        filesystem, root = self._filesystem_and_root
        for wait in (*WAITS, None):
            try:
                return act(filesystem, f"{root}/{name}" if name else root)
            except (FileNotFoundError, PermissionError) as error:
                raise self._error(verb, name, error) from error
            except Exception as error:  # each file system has its own family of errors
                if wait is None:
                    raise self._error(verb, name, error) from error
                logger.warning("%s %s/%s: %s; trying again in %g s", verb, self.url, name, first_line(error), wait)
                time.sleep(wait)
        raise AssertionError

    def _error(self, verb: str, name: str, error: Exception) -> StorageError:
        return StorageError(
            f"The storage did not {verb} the file: {first_line(error)}",
            where=f"{self.url}/{name}",
            fix="check the URL, the credentials and the network, then run the same command again",
        )


def _put(filesystem: AbstractFileSystem, path: Path, to: str) -> None:
    filesystem.put_file(str(path), to)
    filesystem.invalidate_cache()
    if (size := filesystem.size(to)) != path.stat().st_size:
        raise OSError(f"{size} bytes arrived of {path.stat().st_size}")
