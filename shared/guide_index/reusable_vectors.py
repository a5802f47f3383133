"""Texts' hashes and stored vectors of a finished index, for `--reuse`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..storage.files import FileRecord
from ..types import VectorDType
from .guide_index import GuideIndex
from .layout import Layout
from .memory_map import MappedRows
from .tables import read_table


@dataclass(frozen=True)
class ReusableVectors:
    """The texts of a finished index and their stored vectors.

    Attributes:
        layout: The index's folder.
        guide: Fingerprint of the guide that made the vectors.
        vector_dtype: How they are stored.
        measured: Figures of the build.
        texts: The shards of texts.
        vectors: (texts, dim) rows as stored, by text id.
    """

    layout: Layout
    guide: dict[str, Any]
    vector_dtype: VectorDType
    measured: dict[str, Any]
    texts: list[FileRecord]
    vectors: MappedRows

    @classmethod
    def open(cls, locator: str | Path) -> ReusableVectors:
        """Open an index at a path or a URL.

        Raises:
            IndexFaultError: It is no finished index, or damaged.
        """
        index = GuideIndex.open(locator)
        manifest = index.manifest
        texts = manifest.shards["texts"]
        return cls(
            index.layout, manifest.request.guide, index.vector_dtype, manifest.measured, texts, index.stored_vectors
        )

    def text_tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of ``layout.TEXTS``, shard by shard, in the order of text ids."""
        for record in self.texts:
            yield read_table(self.layout.root, record, "texts", columns)
