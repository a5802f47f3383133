"""The manifest of an index: the request that determines it, the records of its files, and how two requests differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GistcacheError, IndexFaultError, StaleIndexError
from ..storage.integrity import FileRecord, checksum, read_checksummed, write_checksummed
from .layout import CONTENT_COLUMNS, FORMAT_VERSION, LOOKUP, Layout, RowForm, ShardKind
from .quantize import VECTOR_DTYPES

# Fields of a request that only inform the reader: two indexes that differ in nothing else are the same.
INFORMATION = frozenset({"guide.name", "reranker.name"})
MOST_DIMENSIONS = 2**20
OLDER_VERSION = 1


@dataclass(frozen=True)
class Request:
    """Everything that determines the contents of an index.

    Attributes:
        guide: Fingerprint of the guide: file hashes, prompts, pooling, max length, dtype, dimensions.
        corpus: Fingerprint of the pairs as they were read: hash and counts.
        settings: The settings of stage 1 that shape what is written.
    """

    guide: dict[str, Any]
    corpus: dict[str, Any]
    settings: dict[str, Any]
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        shards: The records of each kind, in the order of their ids; kinds of later releases may be among them.
        files: The records of other files.
        measured: Figures that were measured while building, by name.
        libraries: Versions of the libraries that built it.
    """

    request: Request
    shards: dict[ShardKind, list[FileRecord]]
    files: list[FileRecord]
    measured: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> list[FileRecord]:
        """Every file of the index."""
        return self.records_without(())

    def records_without(self, kinds: Collection[ShardKind]) -> list[FileRecord]:
        """Every file of the index that is not a shard of these kinds."""
        shards = [record for kind, records in self.shards.items() if kind not in kinds for record in records]
        return [*shards, *self.files]

    @property
    def rows(self) -> dict[str, int]:
        """Rows by kind of shard."""
        return {kind: sum(record.rows for record in records) for kind, records in self.shards.items()}

    @property
    def row_forms(self) -> dict[ShardKind, RowForm]:
        """Shape and type of a row of each kind of array."""
        return {
            "contents": ((CONTENT_COLUMNS,), np.int64),
            "lookup": ((), LOOKUP),
            "negatives": ((), np.int64),
            "vectors": ((int(self.request.guide["dim"]),), self.request.settings["vector_dtype"]),
            "density": ((), np.float32),
        }

    @property
    def key(self) -> str:
        """SHA-256 of the content: two manifests with the same key describe the same index."""
        return checksum(self._content())

    def save(self, layout: Layout) -> None:
        """Write ``manifest.json`` whole; from then on the folder is an index."""
        write_checksummed(layout.manifest, self._content())

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        return content.pop("request") | content

    @classmethod
    def load(cls, layout: Layout) -> Manifest:
        """Read it; IndexFaultError where the folder is no finished index, is of another version, or it is damaged."""
        content = read_finished(layout)
        refuse_other_format(content, layout.manifest)
        with refuse_unusable(layout.manifest):
            manifest = cls(
                request=Request(dict(content["guide"]), dict(content["corpus"]), dict(content["settings"])),
                shards={kind: list(map(FileRecord.from_json, rows)) for kind, rows in content["shards"].items()},
                files=list(map(FileRecord.from_json, content["files"])),
                measured=dict(content["measured"]),
                libraries=dict(content["libraries"]),
            )
            manifest._check()
        return manifest

    def _check(self) -> None:
        """Compare the shards' rows with the corpus; unknown kinds may have any."""
        corpus, rows = self.request.corpus, self.rows
        expected = dict.fromkeys(("texts", "contents", "vectors", "density"), corpus["queries"] + corpus["documents"])
        expected |= dict.fromkeys(("pairs", "lookup", "scores"), corpus["pairs"])
        expected |= {"faiss": corpus["documents"], "negatives": corpus["negatives"]}
        if not expected.items() <= rows.items() or not 0 <= corpus["max_negatives"] <= corpus["negatives"]:
            raise ValueError(f"rows {rows} recorded for a corpus of {corpus}")
        check_vectors(self.request.guide, self.request.settings)


def check_vectors(guide: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise ValueError or KeyError where dimensions or type of the stored vectors are none."""
    if not 0 < guide["dim"] <= MOST_DIMENSIONS:
        raise ValueError(f"a guide of {guide['dim']} dimensions")
    if settings["vector_dtype"] not in VECTOR_DTYPES:
        raise ValueError(f"vectors stored as {settings['vector_dtype']!r}")


def read_finished(layout: Layout) -> dict[str, Any]:
    """Read the manifest of a finished index of any format version; IndexFaultError where there is none intact."""
    if layout.manifest.is_file():
        return read_checksummed(layout.manifest, "manifest")
    what, fix = "There is no guide index here", "make one with `gistcache index PAIRS --guide MODEL --out DIR`"
    if layout.building.is_dir():
        what, fix = (
            "The index is not finished",
            "run the same `gistcache index` command again: it keeps every finished shard",
        )
    raise IndexFaultError(what, where=str(layout.root), fix=fix)


@contextmanager
def refuse_unusable(path: Path) -> Iterator[None]:
    """Turn what an intact manifest with missing or impossible fields raises into an IndexFaultError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IndexFaultError(
            "The manifest cannot be used",
            where=f"{path}: {error!r}",
            fix="it was changed, or made by another build of gistcache: build the index again",
        ) from error


def refuse_other_format(content: dict[str, Any], path: Path, versions: Collection[int] = (FORMAT_VERSION,)) -> None:
    """Raise IndexFaultError where a manifest, or the request of an unfinished build, is of another format version."""
    if (version := content.get("format")) in versions:
        return
    fix = "build the index again with `gistcache index`, or use the release of gistcache that wrote it"
    if version == OLDER_VERSION and path.name == Layout(path.parent).manifest.name:
        fix = "`gistcache index PAIRS --guide MODEL --reuse OLD --out NEW` keeps its vectors"
    what = f"The index has format version {version!r}; this program reads {FORMAT_VERSION}"
    raise IndexFaultError(what, where=str(path), fix=fix)


def named_differences(existing: dict[str, Any], requested: dict[str, Any], holder: str) -> list[str]:
    """Each field in which two JSON objects differ, as ``guide.prompts.query: index has 'a', command asks for 'b'``.

    ``holder`` is what messages call the owner of the first: ``index``.
    """
    old, new = dict(_flat("", existing)), dict(_flat("", requested))
    return [
        f"{name}: {holder} has {old.get(name, 'nothing')!r}, command asks for {new.get(name, 'nothing')!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in INFORMATION
    ]


def refuse_differences(
    existing: dict[str, Any],
    requested: dict[str, Any],
    holder: str,
    what: str,
    *,
    where: str,
    fix: str,
    error: type[GistcacheError] = StaleIndexError,
) -> None:
    """Raise ``error`` naming each field in which two JSON objects differ, if any does; see ``named_differences``."""
    if differences := named_differences(existing, requested, holder):
        raise error(f"{what}:\n    " + "\n    ".join(differences), where=where, fix=fix)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (any JSON value)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value
