"""Texts' hashes and stored vectors of a finished index of this or the older format version, for `--reuse`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..storage.integrity import FileRecord, refuse_damaged
from ..types import VectorDType
from .layout import FORMAT_VERSION, Layout
from .manifest import OLDER_VERSION, check_vectors, read_finished, refuse_other_format, refuse_unusable
from .memory_map import MappedRows
from .remote_copy import LocalCopy
from .tables import read_table

# What a manifest of each version calls its shards; folders' and files' names are in the records.
SHARDS_FIELD = {OLDER_VERSION: "parts", FORMAT_VERSION: "shards"}


@dataclass(frozen=True)
class ReusableVectors:
    """The texts of a finished index and their stored vectors.

    Attributes:
        guide: Fingerprint of the guide that made the vectors.
        vectors: (texts, dim) rows as stored, by text id.
        measured: What its build measured.
    """

    layout: Layout
    guide: dict[str, Any]
    vector_dtype: VectorDType
    texts: list[FileRecord]
    vectors: MappedRows
    measured: dict[str, Any]

    @classmethod
    def open(cls, locator: str | Path) -> ReusableVectors:
        """Open an index at a path or a URL; of its files, only texts and vectors are fetched and compared.

        IndexFaultError where it is no finished index, of an unknown format version, or damaged.
        """
        copy = LocalCopy.of(locator)
        content = read_finished(copy.layout)
        refuse_other_format(content, copy.layout.manifest, SHARDS_FIELD)
        with refuse_unusable(copy.layout.manifest):
            guide, settings, shards = content["guide"], content["settings"], content[SHARDS_FIELD[content["format"]]]
            check_vectors(guide, settings)
            texts, vectors = (list(map(FileRecord.from_json, shards[kind])) for kind in ("texts", "vectors"))
            if [record.rows for record in texts] != [record.rows for record in vectors]:
                raise ValueError("texts and vectors differ in number")
        copy.fetch([*texts, *vectors])
        refuse_damaged(copy.layout.root, [*texts, *vectors])
        rows = MappedRows(copy.layout.file, vectors, ((guide["dim"],), settings["vector_dtype"]))
        return cls(copy.layout, guide, settings["vector_dtype"], texts, rows, dict(content["measured"]))

    def text_tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of ``layout.TEXTS``, shard by shard, in the order of text ids: ``role``, ``text_hash``."""
        for record in self.texts:
            yield read_table(self.layout.root, record, "texts", columns)
