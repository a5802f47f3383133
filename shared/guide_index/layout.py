"""The files of a guide index: their places, Arrow schemas and row types, and the format version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from ..storage.integrity import FileRecord

FORMAT_VERSION = 2

ShardKind = Literal[
    "texts", "contents", "pairs", "lookup", "negatives", "vectors", "density", "faiss", "scores", "rescored"
]

RowForm = tuple[tuple[int, ...], DTypeLike]  # shape and type of a row of an array

# Which text ids stand for one text, (texts, 2) int64: the smallest id with the same text in either role, and the id of
# the same text in the other role (-1 where there is none).
CONTENT_COLUMNS = 2
CONTENT, TWIN = range(CONTENT_COLUMNS)

# The pairs in rows of fixed width, so that a trainer can map them. Pairs of one anchor have consecutive ids.
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


def _columns(**columns: pa.DataType) -> pa.Schema:
    """Columns without nulls."""
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


_IDS, _SCORES = pa.list_(pa.int64()), pa.list_(pa.float32())

# A shard of texts may hold more than 2 GiB of them.
TEXTS = _columns(text_id=pa.int64(), role=pa.string(), text=pa.large_string(), text_hash=pa.binary(16))

PAIRS = _columns(pair_id=pa.int64(), anchor_id=pa.int64(), positive_id=pa.int64(), negative_ids=_IDS).append(
    pa.field("task", pa.string())
)

SCORES = _columns(
    pair_id=pa.int64(),
    positive_score=pa.float32(),
    negative_scores=_SCORES,
    neighbor_ids=_IDS,
    neighbor_scores=_SCORES,
    positive_rank=pa.int64(),
)

RESCORED = _columns(pair_id=pa.int64(), positive_score=pa.float32(), negative_scores=_SCORES, neighbor_scores=_SCORES)

REJECTED = _columns(file=pa.string(), line=pa.int64(), reason=pa.string())

# The kinds that are tables; the others are arrays or FAISS files. Rescored shards lie in a folder of their own, see
# reranker_scores.py.
SCHEMAS: dict[ShardKind, pa.Schema] = {"texts": TEXTS, "pairs": PAIRS, "scores": SCORES, "rescored": RESCORED}


@dataclass(frozen=True)
class Layout:
    """The places of an index folder. Paths in the manifest are relative to ``root``."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The file whose presence makes the folder an index; it is written last."""
        return self.root / "manifest.json"

    @property
    def rejected(self) -> Path:
        """The input rows that were refused, with file, line and reason."""
        return self.root / "rejected.parquet"

    @property
    def building(self) -> Path:
        """The folder where an unfinished build has its request and its journal; finishing deletes it."""
        return self.root / "building"

    @property
    def summary(self) -> Path:
        """Seconds and memory of the last build: beside the index, because no clock time goes into it."""
        return self.root.parent / f"{self.root.name}.summary.json"

    def file(self, record: FileRecord) -> Path:
        """The file of a record."""
        return self.root / record.path

    def shard(self, kind: ShardKind, number: int) -> Path:
        """The file of shard ``number`` of ``kind``."""
        suffix = "parquet" if kind in SCHEMAS else "faiss" if kind == "faiss" else "npy"
        return self.root / kind / f"shard-{number:05d}.{suffix}"
