"""A folder on its way from nothing to an index: one writer, what an earlier run has left, and the manifest last."""

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
from .store import Store

PUSH_SECONDS = 30.0
REQUEST, JOURNAL = "request.json", "journal.jsonl"


@dataclass(frozen=True)
class Contents:
    """What a place is to hold, in the words of messages.

    Attributes:
        name: What it is called.
        holder: What is said to have something else than a command asks for.
        stale: What is said where it was made of something else.
        fix: What to do then.
        refuse_other_format: Refuses a request, which stands at a path, of another format version.
    """

    name: str
    holder: str
    stale: str
    fix: str
    refuse_other_format: Callable[[dict[str, Any], Path], None]

    def refuse_other(self, place: Store, held: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raise StaleIndexError naming each difference between the request of what is held and the one asked for."""
        refuse_differences(held, asked, self.holder, self.stale, where=str(place), fix=self.fix)


INDEX = Contents(
    "guide index",
    "index",
    "The folder holds an index made of something else",
    "use another --out, or give the settings and files it was made with, or delete it; where the guide is the same, "
    "`--reuse OLD --out NEW` embeds only what is new",
    refuse_other_format,
)


def has_manifest(place: Store) -> bool:
    """Whether something finished is there, of whatever request."""
    return "manifest.json" in place.remote.sizes() if place.remote else place.layout.manifest.exists()


def read_manifest(place: Store) -> Manifest:
    """The manifest of something finished.

    Raises:
        IndexFaultError: It is damaged, or of something else.
    """
    if place.remote:
        with atomic_write(place.layout.manifest) as partial:
            place.remote.get("manifest.json", partial)
    manifest = Manifest.load(place.layout)
    if place.remote:  # the storage alone says what it holds
        place.layout.manifest.unlink()
    return manifest


def finished(place: Store, request: Request) -> Manifest | None:
    """The manifest, where the place holds a finished index of this request.

    Raises:
        StaleIndexError: It holds a finished index of another request; names each difference.
        IndexFaultError: It is damaged, or the place holds something else.
    """
    layout = place.layout
    names = place.remote.sizes() if place.remote else {}
    there = "manifest.json" in names if place.remote else layout.manifest.exists() and not layout.building.exists()
    if not there:
        refuse_foreign(place, INDEX, names)
        return None
    manifest = read_manifest(place)
    INDEX.refuse_other(place, asdict(manifest.request), asdict(request))
    if place.remote:
        _refuse_missing(place, manifest, names)
    else:
        refuse_damaged(layout.root, list(manifest.records))
    console.print(f"{place} already holds this index, nothing to do", highlight=False)
    return manifest


def refuse_foreign(place: Store, contents: Contents, names: dict[str, int]) -> None:
    """Raise IndexFaultError where a place that is not begun holds something; ``names`` are the storage's files."""
    root, building = place.root, place.layout.building
    foreign = bool(names) and f"building/{REQUEST}" not in names
    if not place.remote:
        foreign = root.exists() and not building.is_dir() and any(root.iterdir())
    if foreign:
        raise IndexFaultError(
            f"The folder is not empty and holds no {contents.name}",
            where=str(place),
            fix="give another --out, or empty the folder",
        )


def _refuse_missing(place: Store, manifest: Manifest, names: dict[str, int]) -> None:
    missing = [record.path for record in manifest.records if names.get(record.path) != record.bytes]
    if missing:
        raise IndexFaultError(
            f"{len(missing)} files of the index are missing or of another size, first {missing[0]}",
            where=str(place),
            fix="delete the folder and make it again, or copy it again from where it came",
        )


@contextmanager
def unfinished(place: Store, request: dict[str, Any], contents: Contents = INDEX) -> Iterator[Journal]:
    """Hold the place for writing; yields the journal of the parts that are there already.

    Raises:
        StaleIndexError: It was begun with another request; names each difference.
    """
    with folder_lock(place.layout.building):
        if place.remote:
            _take_up(place)
        path = place.layout.building / REQUEST
        if path.exists():
            held = read_checksummed(path, "unfinished build's request")
            contents.refuse_other_format(held, path)
            contents.refuse_other(place, held, request)
        else:
            write_checksummed(path, request)
            place.push(path)
        yield _journal(place)


def _take_up(place: Store) -> None:
    """Bring what an unfinished build has left in the storage; forget what was of another one."""
    assert place.remote
    building, names = place.layout.building, place.remote.sizes()
    theirs = building / f"their-{REQUEST}"
    if there := f"building/{REQUEST}" in names:
        place.remote.get(f"building/{REQUEST}", theirs)
    ours = building / REQUEST
    if not there or not ours.exists() or ours.read_bytes() != theirs.read_bytes():
        _empty(place.layout)
    if there:
        theirs.replace(ours)
        if not (building / JOURNAL).exists() and f"building/{JOURNAL}" in names:
            with atomic_write(building / JOURNAL) as partial:
                place.remote.get(f"building/{JOURNAL}", partial)


def _empty(layout: Layout) -> None:
    for path in layout.root.iterdir():
        if path.is_dir() and path != layout.building:
            shutil.rmtree(path)
    for name in (JOURNAL, REQUEST):
        (layout.building / name).unlink(missing_ok=True)


def _journal(place: Store) -> Journal:
    path = place.layout.building / JOURNAL
    if not place.remote:
        return Journal(path, place.root)
    names = place.remote.sizes()
    journal = _PushedJournal(path, place, names)
    for record in journal.done.values():
        if names.get(record.path) != record.bytes:
            place.push(place.root / record.path)
    return journal


class _PushedJournal(Journal):
    """A journal of which the storage has a copy, half a minute older at most: another machine can go on from there."""

    def __init__(self, path: Path, place: Store, elsewhere: dict[str, int]) -> None:
        super().__init__(path, place.root, elsewhere)
        self._place, self._pushed = place, 0.0

    def record(self, record: FileRecord) -> None:
        """See ``Journal``."""
        super().record(record)
        if time.monotonic() - self._pushed > PUSH_SECONDS:
            self._place.push(self.path)
            self._pushed = time.monotonic()


def finish(place: Store, manifest: Manifest) -> None:
    """Write the manifest: from then on the place holds an index."""
    manifest.save(place.layout)
    place.push(place.layout.manifest)
    place.drop(place.layout.building)
    if place.remote:  # what was made here need not be fetched again to be read here
        copy = copy_of(cache_folder("indexes", place.remote.url), place.layout.manifest)
        place.layout.manifest.unlink()
        if copy.exists():
            shutil.rmtree(place.root)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            place.root.rename(copy)
