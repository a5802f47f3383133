"""A FAISS index of one document shard: build it, tune it, search it, measure it, write and read it."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ...shared.errors import IndexFaultError
from ...shared.guide_index.memory_map import MappedVectors
from ...shared.sampling import sample_of
from ...shared.storage.integrity import FileRecord, content_fault
from .exact import BLOCK_ROWS, SearchResult

EXACT_CODES = "SQfp16"  # all vectors in float16, as most are stored
LISTS_A_ROOT = 4  # inverted lists: this many times the square root of the number of documents
TRAIN_PER_LIST = 64
TARGET_RECALL = 0.95
LEAST_LOOP_LIMIT = 1_000_000


def build(vectors: MappedVectors, start: int, stop: int, *, exact: bool, seed: int) -> faiss.Index:
    """Build the index over documents ``start .. stop``; its ids are text ids.

    Args:
        vectors: All guide vectors.
        start: First document's text id.
        stop: Last document's text id plus one.
        exact: Whether a search compares all documents; else inverted lists. Codes are float16 in both.
        seed: Draws the training sample of the inverted lists.
    """
    count, dim = stop - start, vectors.dim
    if exact:
        index = faiss.index_factory(dim, f"IDMap2,{EXACT_CODES}", faiss.METRIC_INNER_PRODUCT)
    else:
        lists = min(count, int(LISTS_A_ROOT * math.sqrt(count)))
        index: Any = faiss.index_factory(dim, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1
        sample = sample_of(count, TRAIN_PER_LIST * lists, seed)
        index.train(vectors.take(sample + start).astype(np.float32))
    for ids, block in vectors.blocks(start, stop, BLOCK_ROWS):
        index.add_with_ids(block.astype(np.float32), ids)
    return index


def tune(index: faiss.IndexIVF, queries: np.ndarray, truth: np.ndarray) -> None:
    """Raise ``nprobe`` of an inverted-list index until the recall on a sample of queries reaches 0.95.

    Args:
        index: An inverted-list index.
        queries: (n, dim) sample.
        truth: (n, k) ids that exact search finds.
    """
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
    scores, ids = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
    return SearchResult(scores, ids)


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
        full = os.strerror(errno.ENOSPC) in str(error)
        number = errno.ENOSPC if full else errno.EIO
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


def describe(index: faiss.Index) -> dict[str, Any]:
    """Kind and search settings, JSON-ready."""
    if isinstance(index, faiss.IndexIVF):
        return {"kind": "IVF,SQfp16", "lists": int(index.nlist), "probes": int(index.nprobe)}
    return {"kind": EXACT_CODES}
