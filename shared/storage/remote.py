"""An index in object storage, or wherever else fsspec reaches: whole files by name, and a checked local copy to read.

The protocol, its credentials, retries and back-off are those of fsspec's file systems (``s3fs`` for ``s3://``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..errors import IndexFaultError, StorageError, first_line
from ..guide_index.layout import Layout
from ..progress import step
from .files import FileRecord, atomic_write, sha256_of, size_fault
from .lock import folder_lock

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TRANSFERS = 8
WAITS = (1.0, 5.0, 20.0)  # seconds before trying a whole file again, after the file system's own retries have failed


def is_url(locator: str | Path) -> bool:
    """Whether it names something else than a local path."""
    return "://" in str(locator)


def cache_folder(purpose: str, key: str) -> Path:
    """Where the user's cache keeps what belongs to a URL, or to another key."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gistcache" / purpose / hashlib.sha256(key.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Remote:
    """A folder somewhere else; names are relative to it."""

    url: str

    @classmethod
    def of(cls, url: str | Path) -> Remote:
        """The remote folder of a URL.

        Raises:
            StorageError: No file system for such URLs is installed.
        """
        remote = cls(str(url).rstrip("/"))
        _ = remote._place
        return remote

    @property
    def _place(self) -> tuple[AbstractFileSystem, str]:
        """The file system and the path in it; fsspec keeps and reuses the connections."""
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
        self._patiently("upload", name, lambda fs, to: _put(fs, path, to))

    def get(self, name: str, to: Path) -> None:
        """Download a file to a path that nobody reads yet."""
        self._patiently("download", name, lambda fs, source: fs.get_file(source, str(to)))

    def fetch(self, root: Path, record: FileRecord) -> FileRecord:
        """Copy a part into a folder, whole and checked.

        Raises:
            IndexFaultError: It is not the one recorded.
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

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""

        def listed(fs: AbstractFileSystem, root: str) -> dict[str, int]:
            fs.invalidate_cache()
            found = dict(fs.find(root, detail=True))
            return {path.removeprefix(root).lstrip("/"): int(held["size"]) for path, held in found.items()}

        return self._patiently("list", "", listed)

    def remove(self, name: str) -> None:
        """Delete a file or everything under a folder, if it is there."""

        def removed(fs: AbstractFileSystem, path: str) -> None:
            fs.invalidate_cache()
            if fs.exists(path):
                fs.rm(path, recursive=True)

        self._patiently("delete", name, removed)

    def _patiently(self, verb: str, name: str, act: Callable[[AbstractFileSystem, str], Result]) -> Result:
        """Do it; where it fails for a reason that may pass, do it again a few times."""
        filesystem, root = self._place
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


def local_copy(locator: str | Path) -> Path:
    """The folder of an index: itself where it is local, else a copy in the user's cache, fetched once and checked.

    A copy belongs to one version of the remote manifest; another version has another copy.

    Raises:
        StorageError: The remote cannot be read.
        IndexFaultError: It is no finished index, or a file is not the one its manifest records.
    """
    from ..guide_index.manifest import Manifest

    if not is_url(locator):
        return Path(locator).resolve()  # "." has no name, and what is kept beside the index takes it
    remote, cache = Remote.of(locator), cache_folder("indexes", str(locator).rstrip("/"))
    with folder_lock(cache, wait=True):
        manifest_file = cache / "manifest.json"
        fetch_manifest(remote, manifest_file)
        layout = Layout(copy_of(cache, manifest_file))
        if not layout.manifest.exists():
            manifest = Manifest.load(Layout(cache))
            _fetch(remote, layout.root, [record for record in manifest.records if size_fault(layout.root, record)])
            with atomic_write(layout.manifest) as partial:
                partial.write_bytes(manifest_file.read_bytes())
        _fetch_summary(remote, layout)
    return layout.root


def copy_of(cache: Path, manifest_file: Path) -> Path:
    """Where the copy of the index with this manifest lies."""
    return cache / sha256_of(manifest_file)[:16]


def fetch_manifest(remote: Remote, to: Path) -> None:
    """Download the manifest.

    Raises:
        IndexFaultError: There is none.
    """
    try:
        with atomic_write(to) as partial:
            remote.get("manifest.json", partial)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise IndexFaultError(
                "There is no finished guide index here",
                where=remote.url,
                fix="make one with `gistcache index PAIRS --guide MODEL --out URL`, or finish it with the same command",
            ) from error
        raise


def _fetch(remote: Remote, root: Path, records: list[FileRecord]) -> None:
    with (
        step("fetch index", sum(record.bytes for record in records), "bytes") as advance,
        ThreadPoolExecutor(TRANSFERS) as pool,
    ):
        for record in pool.map(lambda record: remote.fetch(root, record), records):
            advance(record.bytes)


def _fetch_summary(remote: Remote, layout: Layout) -> None:
    """What building the index took, where it is told beside it."""
    if not layout.summary.exists():
        try:
            with atomic_write(layout.summary) as partial:
                Remote(f"{remote.url}.summary.json").get("", partial)
        except StorageError as error:
            logger.info("no summary beside the index: %s", error.what)
