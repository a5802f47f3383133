"""How a build begins, resumes and finishes: one writer at a time, and the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ...shared.errors import IndexFaultError
from ...shared.guide_index.manifest import Manifest, Request, refuse_differences, refuse_other_format
from ...shared.guide_index.remote_copy import LocalCopy, copy_of
from ...shared.progress import console
from ...shared.storage.files import atomic_write, cache_folder
from ...shared.storage.integrity import read_checksummed, refuse_damaged, refuse_faults, write_checksummed
from ...shared.storage.journal import Journal
from ...shared.storage.lock import folder_lock
from ...shared.storage.remote import Remote
from .store import Store

REQUEST, JOURNAL = "request.json", "journal.jsonl"


def refuse_other_index(store: Store, existing: dict[str, Any], requested: dict[str, Any]) -> None:
    """Compare the request of an index, finished or not, with that of a command.

    Raises:
        IndexFaultError: It is of another format version.
        StaleIndexError: The requests differ; names each difference.
    """
    refuse_other_format(existing, store.layout.building / REQUEST)
    refuse_differences(
        existing,
        requested,
        "index",
        "The folder holds an index made of something else",
        where=str(store),
        fix="use another --out, or give the settings and files it was made with, or delete it; where the guide is the "
        "same, `--reuse OLD --out NEW` embeds only what is new",
    )


def has_manifest(store: Store) -> bool:
    """Whether the store holds something finished, of whatever request."""
    return store.has(store.layout.manifest)


def read_manifest(store: Store) -> Manifest:
    """The manifest of a finished index; IndexFaultError where it is damaged, or of another format version."""
    return Manifest.load(LocalCopy.of(str(store)).layout)


def finished(store: Store, request: Request) -> Manifest | None:
    """The manifest of a finished index of this request; None where the store holds no finished index.

    Raises:
        StaleIndexError: The store holds a finished index of another request; names each difference.
        IndexFaultError: The index is damaged, or the store holds something else.
    """
    if not has_manifest(store) or store.has(store.layout.building):
        refuse_foreign(store, "guide index")
        return None
    manifest = read_manifest(store)
    refuse_other_index(store, asdict(manifest.request), asdict(request))
    if store.remote:
        sizes = store.remote.sizes()
        records = [record for record in manifest.records if sizes.get(record.path) != record.bytes]
        refuse_faults([f"{record.path}: missing or of another size" for record in records], str(store))
    else:
        refuse_damaged(store.root, manifest.records)
    console.print(f"{store} already holds this index, nothing to do", highlight=False)
    return manifest


def refuse_foreign(store: Store, name: str) -> None:
    """Raise IndexFaultError where a store holds files, and neither something finished nor a build to resume."""
    holds_files = store.remote.exists("") if store.remote else store.root.is_dir() and any(store.root.iterdir())
    if holds_files and not store.has(store.layout.building):
        raise IndexFaultError(
            f"The folder is not empty and holds no {name}",
            where=str(store),
            fix="give another --out, or empty the folder",
        )


@contextmanager
def unfinished(
    store: Store,
    request: dict[str, Any],
    refuse_other: Callable[[Store, dict[str, Any], dict[str, Any]], None] = refuse_other_index,
) -> Iterator[Journal]:
    """Lock the store for writing, begin or resume a build; yields the journal of the files that are committed already.

    Raises FolderLockedError where another process is writing, and what ``refuse_other(store, existing, request)`` does
    where the unfinished build has another request.
    """
    path, sizes = store.layout.building / REQUEST, None
    with folder_lock(store.layout.building):
        if store.remote:
            sizes = store.remote.sizes()
            _fetch_unfinished(store, store.remote, sizes)
        if path.exists():
            refuse_other(store, read_checksummed(path, "unfinished build's request"), request)
        else:
            write_checksummed(path, request)
            store.push(path)
        yield Journal(store.layout.building / JOURNAL, store.root, sizes, store.push)


def _fetch_unfinished(store: Store, remote: Remote, sizes: dict[str, int]) -> None:
    """Fetch request and journal from the storage, which alone says what there is of a build."""
    if f"building/{REQUEST}" not in sizes:
        for path in store.root.iterdir():
            if path.is_dir() and path != store.layout.building:
                shutil.rmtree(path)
    for name in (REQUEST, JOURNAL):
        path = store.layout.building / name
        path.unlink(missing_ok=True)
        if store.name(path) in sizes:
            with atomic_write(path) as partial:
                remote.get(store.name(path), partial)


def finish(store: Store, manifest: Manifest) -> None:
    """Write the manifest; from then on the store holds an index."""
    manifest.save(store.layout)
    store.push(store.layout.manifest)
    store.drop(store.layout.building)
    if store.remote:  # a reader on this machine need not fetch what was built here
        copy = copy_of(cache_folder("indexes", store.remote.url), store.layout.manifest)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            store.root.rename(copy)
        shutil.rmtree(store.root, ignore_errors=True)
