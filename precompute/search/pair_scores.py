"""The scores of every pair, which trainer and report read: of positive, negatives and neighbors, and positive rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import faiss
import numpy as np
import polars as pl
import pyarrow as pa

from ...shared.guide_index.layout import SCORES
from ...shared.guide_index.ragged import as_lists
from ...shared.models.device import pick_device
from ...shared.progress import Advance, step
from ...shared.storage.integrity import FileRecord
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..settings import IndexSettings
from . import faiss_index
from .neighbors import DocumentShard, GuideVectors, ShardAnchors, ShardNeighbors, dots, neighbors_in

TOP = 10


@dataclass(frozen=True)
class ScoreJob:
    """Searches one document shard for one shard of pairs; after the last document shard, computes their scores.

    Attributes:
        store: Where shards are written.
        guide: The guide vectors.
        pairs: The shards of pairs.
        documents: The document shard to search.
        faiss_file: The FAISS file of it; None searches exactly.
        earlier: Neighbors among the document shards before, by number; empty for the first.
        last: Whether no document shard follows.
        neighbors: The number of documents for each anchor.
        device: As the settings have it; each worker resolves it.
    """

    with_guide: ClassVar[bool] = False

    store: Store
    guide: GuideVectors
    pairs: list[FileRecord]
    documents: DocumentShard
    faiss_file: FileRecord | None
    earlier: dict[int, FileRecord]
    last: bool
    neighbors: int
    device: str

    def compute(self, number: int, advance: Advance) -> pa.Table | ShardNeighbors:
        """The scores of a shard of pairs, or its neighbors so far."""
        pairs = self.store.frame(self.pairs[number], "pairs")
        anchors, device = ShardAnchors.of(self.guide, pairs), pick_device(self.device)
        neighbors = neighbors_in(self.guide, anchors, self.documents, self.neighbors, self._index, device)
        if number in self.earlier:
            neighbors = ShardNeighbors.read(self.store.fetch(self.earlier[number])).merged(neighbors)
        advance(pairs.height)
        return score_table(self.guide, pairs, anchors, neighbors) if self.last else neighbors

    def commit(self, number: int, value: pa.Table | ShardNeighbors) -> ShardResult:
        """Write a shard of the index, or a file that the next document shard is merged with."""
        if isinstance(value, pa.Table):
            return ShardResult(number, self.store.commit_shard("scores", number, value))
        path = neighbors_file(self.store, self.documents.number, number)
        return ShardResult(number, self.store.commit(path, len(value.above), value.write))

    @cached_property
    def _index(self) -> faiss.Index | None:
        """The FAISS index of the document shard, which a worker reads once."""
        if self.faiss_file is None:
            return None
        self.store.fetch(self.faiss_file)
        index = faiss_index.read(self.store.root, self.faiss_file)
        return faiss_index.on_gpu(index) if pick_device(self.device).startswith("cuda") else index


def neighbors_folder(store: Store, document_shard: int) -> Path:
    """Where the neighbors among document shards up to this one are kept during a build."""
    return store.layout.building / f"neighbors-{document_shard:05d}"


def neighbors_file(store: Store, document_shard: int, number: int) -> Path:
    """The neighbors of shard ``number`` of the pairs."""
    return neighbors_folder(store, document_shard) / f"shard-{number:05d}.npz"


def score_table(guide: GuideVectors, pairs: pl.DataFrame, anchors: ShardAnchors, neighbors: ShardNeighbors) -> pa.Table:
    """The scores of a shard of pairs, see ``layout.SCORES``.

    ``positive_rank`` counts the documents above the positive, without the anchor's own text: all of them where the
    search is exact, those among the neighbors where it is not.
    """
    negatives = pairs["negative_ids"]
    counts = negatives.list.len().to_numpy()
    negative_ids = negatives.explode(empty_as_null=False).to_numpy()
    repeated = np.repeat(anchors.vectors[anchors.row_of_pair], counts, axis=0)
    scores, ids = neighbors.scores[anchors.row_of_pair], neighbors.ids[anchors.row_of_pair]
    real = ids >= 0
    return pa.table(
        {
            "pair_id": pairs["pair_id"].to_numpy(),
            "positive_score": anchors.positive_scores,
            "negative_scores": as_lists(dots(repeated, guide.vectors.take(negative_ids)), counts),
            "neighbor_ids": as_lists(ids[real], real.sum(axis=1)),
            "neighbor_scores": as_lists(scores[real], real.sum(axis=1)),
            "positive_rank": neighbors.above,
        }
    ).cast(SCORES)


def score_pairs(
    shards: Shards, guide: GuideVectors, document_shards: list[DocumentShard], settings: IndexSettings, *, exact: bool
) -> None:
    """Write the scores of every pair: one document shard after the other, each over all shards of pairs."""
    store, numbers = shards.store, range(len(shards.records["pairs"]))
    missing = [number for number in numbers if not shards.existing("scores", number)]
    pairs = sum(record.rows for record in shards.records["pairs"])
    with step("scores", pairs * len(document_shards), "pairs") as advance:
        for documents in document_shards if missing else []:
            job = ScoreJob(
                store, guide, shards.records["pairs"], documents,
                faiss_file=None if exact else shards.records["faiss"][documents.number],
                earlier=_searched(shards, documents.number - 1, missing),
                last=documents == document_shards[-1],
                neighbors=settings.neighbors,
                device=settings.device,
            )  # fmt: skip
            later = document_shards[documents.number :]
            ahead = {number for each in later for number in _searched(shards, each.number, missing)}
            for _ in shards.run(job, [number for number in missing if number not in ahead], advance):
                pass
            if documents.number:
                store.drop(neighbors_folder(store, documents.number - 1))
    shards.collect("scores", numbers)


def _searched(shards: Shards, document_shard: int, numbers: Sequence[int]) -> dict[int, FileRecord]:
    """The neighbors among document shards up to this one, by shard of pairs, as far as they are committed."""
    paths = {number: neighbors_file(shards.store, document_shard, number) for number in numbers}
    return {number: record for number, path in paths.items() if (record := shards.committed(path))}


def outside_top(shards: Shards) -> float:
    """Share of pairs whose positive has 10 documents or more above it in the guide's ranking."""
    ranks = [
        shards.store.frame(record, "scores", ["positive_rank"])["positive_rank"] for record in shards.records["scores"]
    ]
    return sum(int((each >= TOP).sum()) for each in ranks) / max(1, sum(map(len, ranks)))
