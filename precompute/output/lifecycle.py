"""How a build begins, resumes and finishes: one writer at a time, and the manifest last."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...shared.errors import IndexFaultError
from ...shared.guide_index.layout import Layout
from ...shared.guide_index.manifest import Manifest, Request, refuse_differences, refuse_other_format
from ...shared.guide_index.remote_copy import copy_of
from ...shared.progress import console
from ...shared.storage.files import atomic_write, cache_folder
from ...shared.storage.integrity import FileRecord, read_checksummed, refuse_damaged, write_checksummed
from ...shared.storage.journal import Journal
from ...shared.storage.lock import folder_lock
from ...shared.storage.remote import Remote
from .store import Store

PUSH_SECONDS = 30.0
REQUEST, JOURNAL = "request.json", "journal.jsonl"


@dataclass(frozen=True)
class Contents:
    """What a command writes to a store, in the words of its messages.

    Attributes:
        name: Its name.
        holder: The subject of "... has X, command asks for Y".
        stale: The message where the store was made from something else.
        fix: What to do then.
        refuse_other_format: Refuses the request (read from a path) of another format version.
    """

    name: str
    holder: str
    stale: str
    fix: str
    refuse_other_format: Callable[[dict[str, Any], Path], None]

    def refuse_other(self, store: Store, existing: dict[str, Any], requested: dict[str, Any]) -> None:
        """Raise StaleIndexError naming each difference between two requests."""
        refuse_differences(existing, requested, self.holder, self.stale, where=str(store), fix=self.fix)


INDEX = Contents(
    "guide index",
    "index",
    "The folder holds an index made of something else",
    "use another --out, or give the settings and files it was made with, or delete it; where the guide is the same, "
    "`--reuse OLD --out NEW` embeds only what is new",
    refuse_other_format,
)


def has_manifest(store: Store) -> bool:
    """Whether the store holds something finished, of whatever request."""
    return "manifest.json" in store.remote.sizes() if store.remote else store.layout.manifest.exists()


def read_manifest(store: Store) -> Manifest:
    """The manifest of a finished index.

    Raises:
        IndexFaultError: The manifest is damaged, or of another format version.
    """
    if store.remote:
        with atomic_write(store.layout.manifest) as partial:
            store.remote.get("manifest.json", partial)
    manifest = Manifest.load(store.layout)
    if store.remote:  # the storage alone decides whether the index is finished
        store.layout.manifest.unlink()
    return manifest


def finished(store: Store, request: Request) -> Manifest | None:
    """The manifest of a finished index of this request; None where the store holds no finished index.

    Raises:
        StaleIndexError: The store holds a finished index of another request; names each difference.
        IndexFaultError: The index is damaged, or the store holds something else.
    """
    layout, sizes = store.layout, store.remote.sizes() if store.remote else {}
    if not ("manifest.json" in sizes or (layout.manifest.exists() and not layout.building.exists())):
        refuse_foreign(store, INDEX)
        return None
    manifest = read_manifest(store)
    INDEX.refuse_other(store, asdict(manifest.request), asdict(request))
    if store.remote:
        _refuse_missing(store, manifest, sizes)
    else:
        refuse_damaged(layout.root, list(manifest.records))
    console.print(f"{store} already holds this index, nothing to do", highlight=False)
    return manifest


def refuse_foreign(store: Store, contents: Contents) -> None:
    """Raise IndexFaultError where a store holds files, and neither something finished nor a build to resume."""
    if store.remote:
        sizes = store.remote.sizes()
        foreign = bool(sizes) and f"building/{REQUEST}" not in sizes
    else:
        foreign = store.root.exists() and not store.layout.building.is_dir() and any(store.root.iterdir())
    if foreign:
        raise IndexFaultError(
            f"The folder is not empty and holds no {contents.name}",
            where=str(store),
            fix="give another --out, or empty the folder",
        )


def _refuse_missing(store: Store, manifest: Manifest, sizes: dict[str, int]) -> None:
    missing = [record.path for record in manifest.records if sizes.get(record.path) != record.bytes]
    if missing:
        raise IndexFaultError(
            f"{len(missing)} files of the index are missing or of another size, first {missing[0]}",
            where=str(store),
            fix="delete the folder and make it again, or copy it again from where it came",
        )


@contextmanager
def unfinished(store: Store, request: dict[str, Any], contents: Contents = INDEX) -> Iterator[Journal]:
    """Lock the store for writing, begin or resume a build; yields the journal of the files that are committed already.

    Raises:
        StaleIndexError: The build was begun with another request; names each difference.
        FolderLockedError: Another process is writing.
    """
    with folder_lock(store.layout.building):
        if store.remote:
            _fetch_unfinished(store, store.remote)
        path = store.layout.building / REQUEST
        if path.exists():
            existing = read_checksummed(path, "unfinished build's request")
            contents.refuse_other_format(existing, path)
            contents.refuse_other(store, existing, request)
        else:
            write_checksummed(path, request)
            store.push(path)
        yield _journal(store)


def _fetch_unfinished(store: Store, remote: Remote) -> None:
    """Fetch request and journal of a build that the storage has; empty the local folder where it is of another one."""
    building, sizes = store.layout.building, remote.sizes()
    ours, theirs = building / REQUEST, building / f"their-{REQUEST}"
    begun = f"building/{REQUEST}" in sizes
    if begun:
        remote.get(f"building/{REQUEST}", theirs)
    if not begun or not ours.exists() or ours.read_bytes() != theirs.read_bytes():
        _empty(store.layout)
    if begun:
        theirs.replace(ours)
        if not (building / JOURNAL).exists() and f"building/{JOURNAL}" in sizes:
            with atomic_write(building / JOURNAL) as partial:
                remote.get(f"building/{JOURNAL}", partial)


def _empty(layout: Layout) -> None:
    for path in layout.root.iterdir():
        if path.is_dir() and path != layout.building:
            shutil.rmtree(path)
    for name in (JOURNAL, REQUEST):
        (layout.building / name).unlink(missing_ok=True)


def _journal(store: Store) -> Journal:
    path = store.layout.building / JOURNAL
    if not store.remote:
        return Journal(path, store.root)
    sizes = store.remote.sizes()
    journal = _PushedJournal(path, store, sizes)
    for record in journal.done.values():
        if sizes.get(record.path) != record.bytes:
            store.push(store.root / record.path)
    return journal


class _PushedJournal(Journal):
    """A journal that is copied to the storage every half minute, so that another machine can resume the build."""

    def __init__(self, path: Path, store: Store, elsewhere: dict[str, int]) -> None:
        super().__init__(path, store.root, elsewhere)
        self._store, self._pushed = store, 0.0

    def record(self, record: FileRecord) -> None:
        """See ``Journal``."""
        super().record(record)
        if time.monotonic() - self._pushed > PUSH_SECONDS:
            self._store.push(self.path)
            self._pushed = time.monotonic()


def finish(store: Store, manifest: Manifest) -> None:
    """Write the manifest; from then on the store holds an index."""
    manifest.save(store.layout)
    store.push(store.layout.manifest)
    store.drop(store.layout.building)
    if store.remote:  # a reader on this machine need not fetch what was built here
        copy = copy_of(cache_folder("indexes", store.remote.url), store.layout.manifest)
        store.layout.manifest.unlink()
        if copy.exists():
            shutil.rmtree(store.root)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            store.root.rename(copy)
