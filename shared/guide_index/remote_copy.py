"""The files of an index on this machine: a folder itself, or the copy of one in object storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import IndexFaultError, StorageError
from ..storage.files import atomic_write, cache_folder, sha256_of
from ..storage.integrity import FileRecord, size_fault
from ..storage.lock import folder_lock
from ..storage.remote import Remote, is_url
from .layout import Layout


@dataclass(frozen=True)
class LocalCopy:
    """A folder that has an index's manifest, and gets its other files from the remote, if any, when asked for.

    A copy in the user's cache belongs to one version of the remote manifest; another version has another copy. Several
    processes may fetch at the same time: one downloads, the others wait.
    """

    layout: Layout
    remote: Remote | None = None

    @classmethod
    def of(cls, locator: str | Path) -> LocalCopy:
        """The folder at a path, or the copy of a URL, whose manifest is downloaded; IndexFaultError without one."""
        if not is_url(locator):
            return cls(Layout(Path(locator).resolve()))  # "." has no name, and files beside the index take its name
        remote = Remote.of(locator)
        if not remote.exists("manifest.json"):
            raise IndexFaultError(
                "There is no finished guide index here",
                where=remote.url,
                fix="make one with `gistcache index PAIRS --guide MODEL --out URL`, or finish it with the same command",
            )
        cache = cache_folder("indexes", remote.url)
        with folder_lock(cache, wait=True):
            remote.get("manifest.json", downloaded := cache / "manifest.json")
            layout = Layout(copy_of(cache, downloaded))
            if not layout.manifest.exists():
                with atomic_write(layout.manifest) as partial:
                    downloaded.rename(partial)
        return cls(layout, remote)

    def fetch(self, records: Sequence[FileRecord]) -> None:
        """Download the files that are missing here; IndexFaultError where one is not the one that was recorded."""
        if self.remote and self._missing(records):
            with folder_lock(self.layout.root.parent, wait=True):
                self.remote.fetch_all(self.layout.root, self._missing(records))

    def fetch_summary(self) -> None:
        """Download the summary of the build that lies beside the index, if there is one."""
        if self.remote and not self.layout.summary.exists():
            with suppress(StorageError), atomic_write(self.layout.summary, locked=False) as partial:
                Remote(f"{self.remote.url}.summary.json").get("", partial)

    def _missing(self, records: Sequence[FileRecord]) -> list[FileRecord]:
        return [record for record in records if size_fault(self.layout.root, record)]


def copy_of(cache: Path, manifest: Path) -> Path:
    """The folder inside ``cache`` for the copy of the index that has this manifest file."""
    return cache / sha256_of(manifest)[:16]
