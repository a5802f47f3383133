"""What a guide index folder holds: its files, its Arrow schemas and its format version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

FORMAT_VERSION = 1

Role = Literal["query", "document"]
PartKind = Literal[
    "texts",
    "contents",
    "pairs",
    "lookup",
    "negatives",
    "unrounded",
    "vectors",
    "scales",
    "faiss",
    "scores",
    "rescored",
]

PART_SUFFIX: dict[PartKind, str] = {
    "texts": "parquet",
    "contents": "npy",
    "pairs": "parquet",
    "lookup": "npy",
    "negatives": "npy",
    "unrounded": "npy",
    "vectors": "npy",
    "scales": "npy",
    "faiss": "faiss",
    "scores": "parquet",
    "rescored": "parquet",  # in a folder of its own, see rescored.py
}

# What tells that two text ids are one text, (texts, 2) int64: the smallest id with the same text in either role, and
# the id of the same text in the other role (-1 where there is none).
CONTENT_COLUMNS = 2
CONTENT, TWIN = range(CONTENT_COLUMNS)

# The pairs in rows of fixed width, so that a trainer maps them: pairs of one anchor stand together.
LOOKUP = np.dtype(
    [
        ("anchor", "<i8"),
        ("positive", "<i8"),
        ("group", "<i8"),  # the first pair with the same anchor ...
        ("group_size", "<i8"),  # ... and how many there are
        ("negatives", "<i8"),  # the row of `negatives` where the pair's own begin ...
        ("negative_count", "<i4"),  # ... and how many there are
        ("task", "<i4"),  # number of the task, -1 where the pair has none
    ]
)

# Pairs whose guide vectors are kept as the guide gave them, to tell what rounding them changes.
UNROUNDED_PAIRS = 512


def unrounded_rows(dim: int) -> np.dtype[np.void]:
    """One such pair: its id, and the unit vectors of its texts before they are rounded."""
    return np.dtype([("pair", "<i8"), ("anchor", "<f4", (dim,)), ("positive", "<f4", (dim,))])


TEXTS = pa.schema(
    [
        pa.field("text_id", pa.int64(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # a part may hold more than 2 GiB of text
        pa.field("text_hash", pa.binary(16), nullable=False),
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

RESCORED = pa.schema(
    [
        pa.field("pair_id", pa.int64(), nullable=False),
        pa.field("positive_score", pa.float32(), nullable=False),
        pa.field("negative_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("neighbor_scores", pa.list_(pa.float32()), nullable=False),
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
