"""The FAISS files of an index: one a document shard, built, tuned and measured separately."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ...shared.errors import IndexFaultError
from ...shared.guide_index.memory_map import MappedVectors
from ...shared.models.device import pick_device
from ...shared.progress import Advance, step
from ...shared.sampling import sample_of
from ...shared.storage.integrity import FileRecord, content_fault
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..settings import IndexSettings
from .exact import SearchResult, blocks, exact_search

CODES = "SQfp16"  # all vectors in float16, as most are stored
LISTS_A_ROOT = 4  # inverted lists: this many times the square root of the number of documents
TRAIN_PER_LIST = 64
SAMPLE_QUERIES = 1_000
TARGET_RECALL = 0.95
LEAST_LOOP_LIMIT = 1_000_000


def build(vectors: MappedVectors, documents: range, *, exact: bool, seed: int) -> faiss.Index:
    """Build the index over documents (text ids): all codes where it is ``exact``, else inverted lists."""
    count, dim = len(documents), vectors.dim
    if exact:
        index = faiss.index_factory(dim, f"IDMap2,{CODES}", faiss.METRIC_INNER_PRODUCT)
    else:
        lists = min(count, int(LISTS_A_ROOT * math.sqrt(count)))
        index: Any = faiss.index_factory(dim, f"IVF{lists},{CODES}", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1
        sample = sample_of(count, TRAIN_PER_LIST * lists, seed)
        index.train(vectors.take(sample + documents.start).astype(np.float32))
    for ids, block in blocks(vectors.take, np.arange(documents.start, documents.stop)):
        index.add_with_ids(block.astype(np.float32), ids)
    return index


def tune(index: faiss.IndexIVF, queries: np.ndarray, truth: np.ndarray) -> None:
    """Raise ``nprobe`` until the recall on sampled queries (n, dim), with exact neighbors (n, k), reaches 0.95."""
    index.nprobe = 4
    while index.nprobe < index.nlist and recall(index, queries, truth) < TARGET_RECALL:
        index.nprobe *= 2


def recall(index: faiss.Index, queries: np.ndarray, truth: np.ndarray) -> float:
    """Share of the ids in ``truth`` (n, k) that the index finds among its own top k."""
    ids = search(index, queries, truth.shape[1]).ids
    hits = [len(np.intersect1d(row, right[right >= 0])) for row, right in zip(ids, truth, strict=True)]
    return float(sum(hits) / max(1, int((truth >= 0).sum())))


def search(index: faiss.Index, queries: np.ndarray, k: int) -> SearchResult:
    """The k documents closest to each query (n, dim): scores and text ids, best first."""
    return SearchResult(*index.search(np.ascontiguousarray(queries, dtype=np.float32), k))


def on_gpu(index: faiss.Index) -> faiss.Index:
    """A copy of the index on every GPU that FAISS can use; the index itself where there is none."""
    if hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0:
        return faiss.index_cpu_to_all_gpus(index)
    return index


def write(index: faiss.Index, path: Path) -> None:
    """Write the index to a file.

    Raises:
        OSError: The disk is full or cannot be written, for which FAISS raises RuntimeError.
    """
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def read(root: Path, record: FileRecord) -> faiss.Index:
    """Read an index file, once its checksum is compared, with FAISS's limits set to the size recorded.

    Raises:
        IndexFaultError: The file is not the one recorded, or claims more than it can hold.
    """
    if fault := content_fault(root, record):
        raise IndexFaultError("The FAISS index is damaged", where=fault, fix="delete it and build the index again")
    faiss.set_deserialization_loop_limit(max(record.rows, LEAST_LOOP_LIMIT))
    faiss.set_deserialization_vector_byte_limit(record.bytes)
    try:
        return faiss.read_index(str(root / record.path))
    except RuntimeError as error:
        raise IndexFaultError("The FAISS index cannot be read", where=f"{record.path}: {error}") from error


@dataclass(frozen=True)
class FaissJob:
    """Builds the FAISS file of one document shard, and measures the recall of inverted lists with sampled anchors.

    Files that an earlier run has written, ``existing``, are only measured.
    """

    store: Store
    vectors: MappedVectors
    document_shards: list[range]
    exact: bool
    sample: np.ndarray
    existing: dict[int, FileRecord]
    settings: IndexSettings

    def compute(self, number: int, advance: Advance) -> tuple[faiss.Index, dict[str, Any]]:
        """The index of a document shard and, of inverted lists, their search settings and recall."""
        documents = self.document_shards[number]
        advance(len(documents))
        if record := self.existing.get(number):
            self.store.fetch(record)
            index = read(self.store.root, record)
        else:
            index = build(self.vectors, documents, exact=self.exact, seed=self.settings.seed)
        if not isinstance(index, faiss.IndexIVF):
            return index, {}
        ids, device = np.arange(documents.start, documents.stop), pick_device(self.settings.device)
        truth = exact_search(self.sample, self.vectors.take, ids, self.settings.neighbors, device=device).ids
        if not record:
            tune(index, self.sample, truth)
        reached = recall(index, self.sample, truth)
        return index, {"lists": int(index.nlist), "probes": int(index.nprobe), "recall": reached}

    def commit(self, number: int, value: tuple[faiss.Index, dict[str, Any]]) -> ShardResult:
        """Write the file, unless it exists."""
        index, stats = value
        path, rows = self.store.layout.shard("faiss", number), len(self.document_shards[number])
        record = self.existing.get(number) or self.store.commit(path, rows, partial(write, index))
        return ShardResult(number, record, stats)


def build_faiss_files(
    shards: Shards, vectors: MappedVectors, queries: int, settings: IndexSettings, *, exact: bool
) -> dict[str, Any]:
    """Write a FAISS file for each document shard; returns their kind and, of inverted lists, the measured recall."""
    rows, texts = settings.document_shard_rows, len(vectors)
    document_shards = [range(start, min(start + rows, texts)) for start in range(queries, texts, rows)]
    numbers = range(len(document_shards))
    existing = {number: record for number in numbers if (record := shards.existing("faiss", number))}
    ids = sample_of(queries, 0 if exact else SAMPLE_QUERIES, settings.seed)
    sample = vectors.take(ids).astype(np.float32)
    job = FaissJob(shards.store, vectors, document_shards, exact, sample, existing, settings)
    missing = [number for number in numbers if not (exact and number in existing)]
    with step("FAISS index", texts - queries, "documents") as advance:
        stats = {result.number: result.stats for result in shards.run(job, missing, advance)}
    shards.collect("faiss", numbers)
    if exact:
        return {"exact": True, "kind": CODES, "document_shards": len(numbers)}
    return {
        "exact": False,
        "kind": f"IVF,{CODES}",
        **stats[0],
        "document_shards": len(numbers),
        "recall": round(float(np.mean([stats[number]["recall"] for number in numbers])), 4),
        "recall_at": settings.neighbors,
        "recall_sample": len(ids),
    }
