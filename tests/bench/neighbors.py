"""Neighbours of 100,000 anchors among 100,000 documents, 384 dimensions, top 50: exact and approximate.

    python tests/bench/neighbors.py --rows 100000

Vectors lie around random centres, so that they have neighbours as texts do. Recall is against exact search on a sample.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from gistcache.precompute.search import faiss_index
from gistcache.precompute.search.exact import exact_search
from gistcache.shared.guide_index.layout import Layout
from gistcache.shared.guide_index.memory_map import MappedRows, MappedVectors
from gistcache.shared.storage.journal import commit_rows
from gistcache.shared.timing import peak_memory_bytes
from interleaved import Figures

DIM, NEIGHBORS, PER_CENTRE, SAMPLE = 384, 50, 100, 1_000


def clustered(rows: int, seed: int) -> np.ndarray:
    """(rows, DIM) float16 unit vectors around rows / PER_CENTRE centres."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, rows // PER_CENTRE), DIM), dtype=np.float32)
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(len(centres), size=rows)]
    vectors += random.standard_normal((rows, DIM), dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def stored(vectors: np.ndarray) -> MappedVectors:
    """The vectors as an index stores them."""
    folder = Path(tempfile.mkdtemp())
    record = commit_rows(folder, folder / "shard-00000.npy", vectors)
    return MappedVectors(MappedRows(Layout(folder).file, [record]))


def measure(rows: int) -> Figures:
    """Seconds and recall of both kinds of search."""
    anchors, documents = clustered(rows, 1), clustered(rows, 2)
    begun = time.perf_counter()
    exact = exact_search(anchors, documents.__getitem__, np.arange(rows), NEIGHBORS)
    seconds_exact = time.perf_counter() - begun
    figures = {"rows": rows, "exact": {"seconds": seconds_exact, "recall": 1.0, "build": 0.0}}
    sample = np.sort(np.random.default_rng(0).choice(rows, size=min(SAMPLE, rows), replace=False))
    queries = anchors[sample].astype(np.float32)
    begun = time.perf_counter()
    index = faiss_index.build(stored(documents), range(rows), exact=False, seed=0)
    faiss_index.tune(index, queries, exact.ids[sample])
    build = time.perf_counter() - begun
    begun = time.perf_counter()
    faiss_index.search(index, anchors, NEIGHBORS)
    seconds = time.perf_counter() - begun
    recall = faiss_index.recall(index, queries, exact.ids[sample])
    figures["IVF,SQfp16"] = {"seconds": seconds, "recall": recall, "build": build}
    return figures | {"peak": peak_memory_bytes()}


def table(figures: Figures) -> str:
    """Both searches as a table."""
    lines = ["| search | building | searching | recall at 50 |", "|---|---|---|---|"]
    for name, measured in figures.items():
        if isinstance(measured, dict):
            lines.append(
                f"| {name} | {measured['build']:.0f} s | {measured['seconds']:.0f} s | {measured['recall']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    figures = measure(args.rows)
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
