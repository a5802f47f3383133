"""The FAISS files of an index: one a document shard, built, tuned and measured separately."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import faiss
import numpy as np

from ...shared.guide_index.memory_map import MappedVectors
from ...shared.models.device import pick_device
from ...shared.progress import Advance, step
from ...shared.sampling import sample_of
from ...shared.storage.integrity import FileRecord
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..settings import IndexSettings
from . import faiss_index
from .exact import BLOCK_ROWS, exact_search
from .neighbors import DocumentShard, GuideVectors

SAMPLE_QUERIES = 1_000


@dataclass(frozen=True)
class FaissJob:
    """Builds the FAISS file of one document shard, and measures the recall of inverted lists.

    Attributes:
        store: Where the files are written.
        vectors: All guide vectors.
        document_shards: The documents of each file.
        exact: Whether to search all documents; else inverted lists.
        sample: (n, dim) float32 anchors that recall is measured with.
        neighbors: The k of that recall.
        seed: Of the inverted lists.
        existing: Files that an earlier run has written, by number; they are only measured.
        device: As the settings have it; each worker resolves it.
    """

    with_guide: ClassVar[bool] = False

    store: Store
    vectors: MappedVectors
    document_shards: list[DocumentShard]
    exact: bool
    sample: np.ndarray
    neighbors: int
    seed: int
    existing: dict[int, FileRecord]
    device: str

    def compute(self, number: int, advance: Advance) -> tuple[faiss.Index, dict[str, Any]]:
        """The index of a document shard and its search settings."""
        _, start, stop = self.document_shards[number]
        advance(stop - start)
        if record := self.existing.get(number):
            self.store.fetch(record)
            index = faiss_index.read(self.store.root, record)
        else:
            index = faiss_index.build(self.vectors, start, stop, exact=self.exact, seed=self.seed)
        if not isinstance(index, faiss.IndexIVF):
            return index, faiss_index.describe(index)
        blocks = partial(self.vectors.blocks, start, stop, BLOCK_ROWS)
        truth = exact_search(self.sample, blocks, self.neighbors, device=pick_device(self.device)).ids
        if number not in self.existing:
            faiss_index.tune(index, self.sample, truth)
        return index, {**faiss_index.describe(index), "recall": faiss_index.recall(index, self.sample, truth)}

    def commit(self, number: int, value: tuple[faiss.Index, dict[str, Any]]) -> ShardResult:
        """Write the file, unless it exists."""
        index, stats = value
        _, start, stop = self.document_shards[number]
        path = self.store.layout.shard("faiss", number)
        record = self.existing.get(number) or self.store.commit(path, stop - start, partial(faiss_index.write, index))
        return ShardResult(number, record, stats)


def build_faiss_files(
    shards: Shards, guide: GuideVectors, document_shards: list[DocumentShard], settings: IndexSettings, *, exact: bool
) -> dict[str, Any]:
    """Write a FAISS file for each document shard; returns their kind and, of inverted lists, the measured recall."""
    numbers = range(len(document_shards))
    existing = {number: record for number in numbers if (record := shards.existing("faiss", number))}
    ids = sample_of(guide.queries, 0 if exact else SAMPLE_QUERIES, settings.seed)
    sample = guide.vectors.take(ids).astype(np.float32)
    job = FaissJob(
        shards.store, guide.vectors, document_shards, exact, sample, settings.neighbors, settings.seed, existing,
        settings.device,
    )  # fmt: skip
    missing = [number for number in numbers if not (exact and number in existing)]
    with step("FAISS index", sum(each.stop - each.start for each in document_shards), "documents") as advance:
        stats = {result.number: result.stats for result in shards.run(job, missing, advance)}
    shards.collect("faiss", numbers)
    if exact:
        return {"exact": True, "kind": faiss_index.EXACT_CODES, "document_shards": len(numbers)}
    return {
        "exact": False,
        **stats[0],
        "document_shards": len(numbers),
        "recall": round(float(np.mean([stats[number].get("recall", 1.0) for number in numbers])), 4),
        "recall_at": settings.neighbors,
        "recall_sample": len(ids),
    }
