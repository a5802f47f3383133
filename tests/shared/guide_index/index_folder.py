"""A small guide index written by hand, by docs/INDEX_FORMAT.md alone: nothing of the product writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIM = 4
KINDS_OF_VERSION_1 = {"density": "scales"}
LOOKUP = [(name, "<i8") for name in ("anchor", "positive", "group", "group_size", "negatives")]
LOOKUP += [("negative_count", "<i4"), ("task", "<i4")]
FLOATS, IDS = pa.list_(pa.float32()), pa.list_(pa.int64())


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def text_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def table(**columns: tuple[pa.DataType, list]) -> pa.Table:
    schema = pa.schema([pa.field(name, kind, nullable=name == "task") for name, (kind, _) in columns.items()])
    return pa.table({name: values for name, (_, values) in columns.items()}, schema=schema)


class IndexFolder:
    """The shards of an index, which a test may change before it writes them.

    Args:
        queries: Texts of the role query.
        documents: Texts of the role document.
        pairs: Anchor and positive of each pair, as text ids; pairs of one anchor stand together.
    """

    def __init__(self, queries: list[str], documents: list[str], pairs: list[tuple[int, int]]) -> None:
        texts, ids = queries + documents, np.arange(len(queries) + len(documents))
        roles, split = ["query"] * len(queries) + ["document"] * len(documents), len(queries)
        self.vectors, self.guide = unit_vectors(len(texts)), {"name": "g", "files": {"w": "0" * 64}, "dim": DIM}
        self.settings = {"vector_dtype": "float16", "neighbors": 1}
        self.corpus = {"queries": split, "documents": len(documents), "pairs": len(pairs), "sha256": "0" * 64}
        self.corpus |= {"negatives": 0, "max_negatives": 0}
        self.measured: dict[str, Any] = {}
        all_texts = table(
            text_id=(pa.int64(), ids.tolist()), role=(pa.string(), roles), text=(pa.large_string(), texts),
            text_hash=(pa.binary(16), [text_hash(text) for text in texts]),
        )  # fmt: skip
        twins = [next((j for j in ids if j != i and texts[j] == texts[i]), -1) for i in ids]
        contents = np.array([[min(i, t) if t >= 0 else i, t] for i, t in zip(ids, twins, strict=True)], dtype=np.int64)
        self.shards: dict[str, list[Any]] = {
            "texts": [all_texts[:split], all_texts[split:]],
            "contents": [contents[:split], contents[split:]],
            "vectors": [self.vectors[:split], self.vectors[split:]],
            "density": [np.ones(split, np.float32), np.ones(len(documents), np.float32)],
            "pairs": [], "lookup": [], "negatives": [], "scores": [],
            "faiss": [b"not opened by readers"],
        }  # fmt: skip
        self.rows_of_faiss = len(documents)
        if pairs:
            self._add_pairs(pairs)

    def _add_pairs(self, pairs: list[tuple[int, int]]) -> None:
        anchors, positives = map(list, zip(*pairs, strict=True))
        lookup = [(a, p, anchors.index(a), anchors.count(a), 0, 0, -1) for a, p in pairs]
        ids, none = list(range(len(pairs))), [[] for _ in pairs]
        self.shards["lookup"] = [np.array(lookup, dtype=LOOKUP)]
        self.shards["negatives"] = [np.empty(0, dtype=np.int64)]
        self.shards["pairs"] = [
            table(
                pair_id=(pa.int64(), ids), anchor_id=(pa.int64(), anchors), positive_id=(pa.int64(), positives),
                negative_ids=(IDS, none), task=(pa.string(), [None] * len(pairs)),
            )
        ]  # fmt: skip
        self.shards["scores"] = [
            table(
                pair_id=(pa.int64(), ids), positive_score=(pa.float32(), [0.5] * len(ids)),
                negative_scores=(FLOATS, none),
                neighbor_ids=(IDS, [[p] for p in positives]), neighbor_scores=(FLOATS, [[0.5] for _ in pairs]),
                positive_rank=(pa.int64(), [0] * len(ids)),
            )
        ]  # fmt: skip

    def write(self, root: Path, *, version: int = 2, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
        """Write the folder; ``change`` may edit the manifest before its checksum is made."""
        noun = {1: "part", 2: "shard"}[version]
        names = KINDS_OF_VERSION_1 if version == 1 else {}
        records = {
            names.get(kind, kind): [
                self._write(root, f"{names.get(kind, kind)}/{noun}-{number:05d}", shard)
                for number, shard in enumerate(shards)
            ]
            for kind, shards in self.shards.items()
        }
        content = {"format": version, "guide": self.guide, "corpus": self.corpus, "settings": self.settings}
        content |= {f"{noun}s": records, "files": [], "measured": self.measured, "libraries": {}}
        change(content)
        text = json.dumps(content, sort_keys=True)
        content["sha256_of_the_rest"] = hashlib.sha256(text.encode()).hexdigest()
        (root / "manifest.json").write_text(json.dumps(content))
        return root

    def _write(self, root: Path, name: str, shard: pa.Table | np.ndarray | bytes) -> dict[str, Any]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(shard, pa.Table):
            path, rows = root / f"{name}.parquet", shard.num_rows
            pq.write_table(shard, path)
        elif isinstance(shard, np.ndarray):
            path, rows = root / f"{name}.npy", len(shard)
            np.save(path, shard)
        else:
            path, rows = root / f"{name}.faiss", self.rows_of_faiss
            path.write_bytes(shard)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"path": str(path.relative_to(root)), "rows": rows, "bytes": path.stat().st_size, "sha256": digest}


def small() -> IndexFolder:
    """Three queries, four documents, of which one repeats a query and one is in no pair; three pairs of two anchors."""
    return IndexFolder(
        ["red dog", "blue cat", "a ship"], ["the sea", "red dog", "sand", "snow"], [(0, 3), (0, 5), (1, 4)]
    )
