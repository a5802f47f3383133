"""What a guide index folder holds: its files, its Arrow schemas and its format version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

FORMAT_VERSION = 1

Role = Literal["query", "document"]
PartKind = Literal["texts", "pairs", "vectors", "scales", "scores"]

PART_SUFFIX: dict[PartKind, str] = {
    "texts": "parquet",
    "pairs": "parquet",
    "vectors": "npy",
    "scales": "npy",
    "scores": "parquet",
}

TEXTS = pa.schema(
    [
        pa.field("text_id", pa.int64(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_hash", pa.binary(16), nullable=False),
        # The smallest text id with the same text in either role: what tells that two ids are one text.
        pa.field("content_id", pa.int64(), nullable=False),
    ]
)

PAIRS = pa.schema(
    [
        pa.field("pair_id", pa.int64(), nullable=False),
        pa.field("anchor_id", pa.int64(), nullable=False),
        pa.field("positive_id", pa.int64(), nullable=False),
        pa.field("negative_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("task", pa.string()),
    ]
)

SCORES = pa.schema(
    [
        pa.field("pair_id", pa.int64(), nullable=False),
        pa.field("positive_score", pa.float32(), nullable=False),
        pa.field("negative_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("neighbor_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("neighbor_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("positive_rank", pa.int64(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
    ]
)

REJECTED = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Layout:
    """The places of an index folder. Paths inside the manifest are relative to ``root``."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The file whose presence makes the folder an index; written last."""
        return self.root / "manifest.json"

    @property
    def rejected(self) -> Path:
        """Input rows refused, with file, line and reason."""
        return self.root / "rejected.parquet"

    @property
    def faiss(self) -> Path:
        """The FAISS index over the document vectors."""
        return self.root / "faiss" / "documents.faiss"

    @property
    def building(self) -> Path:
        """Where an unfinished build keeps its request and its journal; gone when the manifest is there."""
        return self.root / "building"

    @property
    def summary(self) -> Path:
        """Seconds and memory of the last build: beside the index, because no clock time goes into it."""
        return self.root.parent / f"{self.root.name}.summary.json"

    def part(self, kind: PartKind, number: int) -> Path:
        """Part ``number`` of ``kind``."""
        return self.root / kind / f"part-{number:05d}.{PART_SUFFIX[kind]}"
