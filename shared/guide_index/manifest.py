"""What an index was made of: the request that fixed it, the table of its parts, and how two requests differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import GistcacheError, IndexFaultError, StaleIndexError
from ..storage.checksummed_json import checksum, read_checksummed, write_checksummed
from ..storage.files import FileRecord, count_of
from .layout import CONTENT_COLUMNS, FORMAT_VERSION, LOOKUP, Layout, ShardKind
from .quantize import VECTOR_DTYPES

# Fields of a request that inform the reader and do not make two indexes different.
INFORMATION = frozenset({"guide.name", "reranker.name"})
MOST_DIMENSIONS = 2**20


@dataclass(frozen=True)
class Request:
    """Everything that determines the bytes of an index.

    Attributes:
        guide: Fingerprint of the guide: file hashes, prompts, pooling, max length, dtype, dimensions.
        corpus: Fingerprint of the pairs as they were read: hash and counts.
        settings: The settings of stage 1 that shape what is written.
        format: Format version of the folder.
    """

    guide: dict[str, Any]
    corpus: dict[str, Any]
    settings: dict[str, Any]
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class Manifest:
    """The whole ``manifest.json``: the request, the part table, and what was measured while building."""

    request: Request
    shards: dict[ShardKind, list[FileRecord]]
    files: list[FileRecord]
    measured: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> Iterator[FileRecord]:
        """Every file the index vouches for."""
        for kind in self.shards:
            yield from self.shards[kind]
        yield from self.files

    @property
    def rows(self) -> dict[str, int]:
        """Rows by kind of part."""
        return {kind: sum(record.rows for record in records) for kind, records in self.shards.items()}

    @property
    def row_forms(self) -> dict[ShardKind, tuple[tuple[int, ...], DTypeLike]]:
        """Shape and type of a row of each kind of array."""
        dim = int(self.request.guide["dim"])
        return {
            "contents": ((CONTENT_COLUMNS,), np.int64),
            "lookup": ((), LOOKUP),
            "negatives": ((), np.int64),
            "vectors": ((dim,), self.request.settings["vector_dtype"]),
            "density": ((), np.float32),
        }

    def save(self, layout: Layout) -> None:
        """Write ``manifest.json`` whole; from then on the folder is an index."""
        write_checksummed(layout.manifest, self._content())

    @property
    def key(self) -> str:
        """SHA-256 of the content: two manifests with the same key describe the same index."""
        return checksum(self._content())

    def _content(self) -> dict[str, Any]:
        return asdict(self.request) | {
            "shards": {kind: [asdict(record) for record in records] for kind, records in self.shards.items()},
            "files": [asdict(record) for record in self.files],
            "measured": self.measured,
            "libraries": self.libraries,
        }

    @classmethod
    def load(cls, layout: Layout) -> Manifest:
        """Read and check ``manifest.json``.

        Raises:
            IndexFaultError: The folder is no finished index, or of another format version, or the file is damaged.
        """
        _refuse_unfinished(layout)
        content = read_checksummed(layout.manifest, "manifest")
        refuse_other_format(content, layout.manifest)
        try:
            manifest = cls(
                request=request_from_json(content),
                shards={kind: [FileRecord.from_json(r) for r in rows] for kind, rows in content["shards"].items()},
                files=[FileRecord.from_json(record) for record in content["files"]],
                measured=dict(content["measured"]),
                libraries=dict(content["libraries"]),
            )
            manifest._check()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise IndexFaultError(
                "The manifest cannot be used",
                where=f"{layout.manifest}: {error!r}",
                fix="it was changed, or made by another build of gistcache: build the index again",
            ) from error
        return manifest

    def _check(self) -> None:
        """Whether the part table agrees with itself and with the corpus; raises ValueError or KeyError."""
        corpus, rows = self.request.corpus, self.rows
        texts = count_of(corpus, "queries") + count_of(corpus, "documents")
        pairs = count_of(corpus, "pairs")
        expected = {kind: texts for kind in ("texts", "contents", "vectors", "density")}
        expected |= {kind: pairs for kind in ("pairs", "lookup", "scores")}
        expected |= {"faiss": corpus["documents"], "negatives": count_of(corpus, "negatives")}
        if rows != expected:
            raise ValueError(f"rows {rows} recorded, {expected} expected")
        if count_of(corpus, "max_negatives") > count_of(corpus, "negatives"):
            raise ValueError(f"{corpus['max_negatives']} negatives of one pair, {corpus['negatives']} of all")
        if not 0 < count_of(self.request.guide, "dim") <= MOST_DIMENSIONS:
            raise ValueError(f"a guide of {self.request.guide['dim']} dimensions")
        if self.request.settings["vector_dtype"] not in VECTOR_DTYPES:
            raise ValueError(f"vectors stored as {self.request.settings['vector_dtype']!r}")


def _refuse_unfinished(layout: Layout) -> None:
    if layout.manifest.is_file():
        return
    unfinished = layout.building.is_dir()
    raise IndexFaultError(
        "The index is not finished" if unfinished else "There is no guide index here",
        where=str(layout.root),
        fix="run the same `gistcache index` command again: it keeps every finished part"
        if unfinished
        else "make one with `gistcache index PAIRS --guide MODEL --out DIR`",
    )


def refuse_other_format(content: dict[str, Any], path: Path) -> None:
    """Raise IndexFaultError where a manifest or request is of another format version."""
    if content.get("format") != FORMAT_VERSION:
        raise IndexFaultError(
            f"The index has format version {content.get('format')!r}; this program reads {FORMAT_VERSION}",
            where=str(path),
            fix="build the index again with `gistcache index`",
        )


def request_from_json(content: dict[str, Any]) -> Request:
    """Take the request's fields out of a manifest or of an unfinished build's ``request.json``."""
    guide, corpus, settings = (dict(content[name]) for name in ("guide", "corpus", "settings"))
    return Request(guide, corpus, settings, int(content["format"]))


def named_differences(held: dict[str, Any], asked: dict[str, Any], holder: str) -> list[str]:
    """Each field in which two JSON objects differ, as ``guide.prompts.query: index has 'a', command asks for 'b'``.

    Args:
        held: What there is.
        asked: What a command asks for.
        holder: What is said to have the first: ``index``.
    """
    old, new = dict(_flat("", held)), dict(_flat("", asked))
    return [
        f"{name}: {holder} has {old.get(name, 'nothing')!r}, command asks for {new.get(name, 'nothing')!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in INFORMATION
    ]


def refuse_differences(
    held: dict[str, Any],
    asked: dict[str, Any],
    holder: str,
    what: str,
    *,
    where: str,
    fix: str,
    error: type[GistcacheError] = StaleIndexError,
) -> None:
    """Raise ``error`` naming each field in which two JSON objects differ, if any does; see ``named_differences``."""
    if found := named_differences(held, asked, holder):
        raise error(f"{what}:\n    " + "\n    ".join(found), where=where, fix=fix)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (any JSON value)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value
