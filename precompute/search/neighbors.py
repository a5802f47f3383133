"""The neighbors of every anchor and the scores of every pair, which trainer and report read.

Up to ``exact_limit`` documents each shard of pairs is searched exactly. Above, one document shard after the other is
searched by its FAISS file, which fits one machine; the results of a shard of pairs are merged with those before, so
that a worker needs no more than the top k of its own pairs, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import polars as pl
import pyarrow as pa

from ...shared.guide_index.layout import SCORES, TWIN
from ...shared.guide_index.memory_map import MappedRows, MappedVectors
from ...shared.guide_index.ragged import as_lists
from ...shared.models.device import pick_device
from ...shared.progress import Advance, step
from ...shared.storage.integrity import FileRecord
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..settings import IndexSettings
from . import faiss_index
from .exact import SearchResult, count_above, exact_search

RESCORE_ROWS = 512
TOP = 10


@dataclass(frozen=True)
class GuideVectors:
    """Guide vectors by text id; queries come first, documents after them.

    Attributes:
        vectors: (texts, dim), memory-mapped.
        contents: (texts, 2) int64: the smallest id with the same text, and the same text's id in the other role.
    """

    vectors: MappedVectors
    contents: MappedRows


class ShardAnchors(NamedTuple):
    """The anchors of a shard of P pairs, each once, and the pairs' positives.

    Attributes:
        row_of_pair: (P,) the row of each pair's anchor.
        vectors: (n, dim) float32 guide vectors of the anchors.
        twins: (n,) id of the document with the anchor's own text, which is no neighbor; -1 where there is none.
        positive_ids: (P,) int64.
        positive_scores: (P,) float32 guide score of anchor and positive.
    """

    row_of_pair: np.ndarray
    vectors: np.ndarray
    twins: np.ndarray
    positive_ids: np.ndarray
    positive_scores: np.ndarray

    @classmethod
    def of(cls, guide: GuideVectors, pairs: pl.DataFrame) -> ShardAnchors:
        """Look up the pairs of a shard: anchor_id, positive_id."""
        anchor_ids, row_of_pair = np.unique(pairs["anchor_id"].to_numpy(), return_inverse=True)
        vectors = guide.vectors.take(anchor_ids).astype(np.float32)
        positive_ids = pairs["positive_id"].to_numpy()
        scores = _dots(vectors[row_of_pair], guide.vectors.take(positive_ids))
        return cls(row_of_pair, vectors, guide.contents.take(anchor_ids)[:, TWIN], positive_ids, scores)


@dataclass(frozen=True)
class SearchJob:
    """Searches one document shard by its FAISS file for the neighbors of one shard of pairs.

    It writes the result to ``paths[number]``, merged with that of the document shards before, ``earlier[number]``.
    """

    store: Store
    guide: GuideVectors
    pairs: list[FileRecord]
    faiss_file: FileRecord
    paths: dict[int, Path]
    earlier: dict[int, FileRecord]
    settings: IndexSettings

    def compute(self, number: int, advance: Advance) -> SearchResult:
        """The k closest documents so far, without the anchor's own text; scores are those of the stored vectors."""
        pairs, k = self.store.frame(self.pairs[number], "pairs"), self.settings.neighbors
        anchors = ShardAnchors.of(self.guide, pairs)
        ids = faiss_index.search(self._index, anchors.vectors, k + 1).ids
        scores = _rescore(self.guide.vectors, anchors.vectors, ids)
        scores[(ids < 0) | (ids == anchors.twins[:, None])] = -np.inf
        if number in self.earlier:  # of equal scores the earlier document comes first
            before = _read(self.store.fetch(self.earlier[number]))
            scores, ids = np.hstack([before.scores, scores]), np.hstack([before.ids, ids])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
        advance(pairs.height)
        return SearchResult(scores, np.where(np.isneginf(scores), -1, ids))

    def commit(self, number: int, value: SearchResult) -> ShardResult:
        """Write the results."""
        rows = self.pairs[number].rows
        return ShardResult(number, self.store.commit(self.paths[number], rows, partial(_write, value)))

    @cached_property
    def _index(self) -> faiss.Index:
        """A worker reads it once."""
        self.store.fetch(self.faiss_file)
        index = faiss_index.read(self.store.root, self.faiss_file)
        return faiss_index.on_gpu(index) if pick_device(self.settings.device).startswith("cuda") else index


def _write(result: SearchResult, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, scores=result.scores, ids=result.ids)


def _read(path: Path) -> SearchResult:
    with np.load(path, allow_pickle=False) as arrays:
        return SearchResult(arrays["scores"], arrays["ids"])


@dataclass(frozen=True)
class ScoreJob:
    """Computes the scores of one shard of pairs.

    ``neighbors`` has the result of the FAISS files for each shard of pairs; where it is None, all ``documents`` are
    searched exactly.
    """

    store: Store
    guide: GuideVectors
    pairs: list[FileRecord]
    documents: range
    neighbors: dict[int, FileRecord] | None
    settings: IndexSettings

    def compute(self, number: int, advance: Advance) -> pa.Table:
        """See ``layout.SCORES``.

        ``positive_rank`` counts the documents above the positive, without the anchor's own text: all of them where the
        search is exact, those among the neighbors where it is not.
        """
        pairs = self.store.frame(self.pairs[number], "pairs")
        anchors = ShardAnchors.of(self.guide, pairs)
        scores, ids, ranks = self._neighbors(number, anchors)
        negatives = pairs["negative_ids"]
        counts = negatives.list.len().to_numpy()
        negative_vectors = self.guide.vectors.take(negatives.explode(empty_as_null=False).to_numpy())
        negative_scores = _dots(np.repeat(anchors.vectors[anchors.row_of_pair], counts, axis=0), negative_vectors)
        real = ids >= 0
        advance(pairs.height)
        return pa.table(
            {
                "pair_id": pairs["pair_id"].to_numpy(),
                "positive_score": anchors.positive_scores,
                "negative_scores": as_lists(negative_scores, counts),
                "neighbor_ids": as_lists(ids[real], real.sum(axis=1)),
                "neighbor_scores": as_lists(scores[real], real.sum(axis=1)),
                "positive_rank": ranks,
            }
        ).cast(SCORES)

    def _neighbors(self, number: int, anchors: ShardAnchors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores and ids of each pair's neighbors, (P, k), and the number of documents above its positive, (P,)."""
        device, take = pick_device(self.settings.device), self.guide.vectors.take
        documents = np.arange(self.documents.start, self.documents.stop)
        if self.neighbors is None:
            k, twins = self.settings.neighbors, anchors.twins
            result = exact_search(anchors.vectors, take, documents, k, exclude=twins, device=device)
        else:
            result = _read(self.store.fetch(self.neighbors[number]))
        scores, ids = result.scores[anchors.row_of_pair], result.ids[anchors.row_of_pair]
        positives, limits = anchors.positive_ids, anchors.positive_scores
        above = ((scores > limits[:, None]) & (ids != positives[:, None])).sum(axis=1)
        deep = np.flatnonzero(scores[:, -1] > limits)
        if self.neighbors is None and deep.size:  # more documents than the k neighbors are above the positive
            rows = anchors.row_of_pair[deep]
            above[deep] = count_above(
                anchors.vectors[rows], limits[deep], take, documents,
                own=positives[deep], exclude=anchors.twins[rows], device=device,
            )  # fmt: skip
        return scores, ids, above

    def commit(self, number: int, value: pa.Table) -> ShardResult:
        """Write the shard."""
        return ShardResult(number, self.store.commit_shard("scores", number, value))


def _dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Guide scores row by row: (n, dim) float32 and (n, dim) -> (n,) float32."""
    return np.einsum("nd,nd->n", left, right.astype(np.float32)).astype(np.float32)


def _rescore(vectors: MappedVectors, anchors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Guide scores of anchors (n, dim) float32 with documents (n, m): (n, m) float32."""
    scores = np.empty(ids.shape, dtype=np.float32)
    for start in range(0, len(ids), RESCORE_ROWS):
        rows = slice(start, start + RESCORE_ROWS)
        documents = vectors.take(np.maximum(ids[rows], 0).ravel()).reshape(*ids[rows].shape, -1)
        scores[rows] = np.einsum("nd,nkd->nk", anchors[rows], documents.astype(np.float32))
    return scores


def score_pairs(shards: Shards, guide: GuideVectors, queries: int, settings: IndexSettings, *, exact: bool) -> float:
    """Write the scores of every pair; returns the share of pairs with 10 documents or more above their positive."""
    store, pairs = shards.store, shards.records["pairs"]
    missing = [number for number in range(len(pairs)) if not shards.existing("scores", number)]
    neighbors = None if exact or not missing else _search_document_shards(shards, guide, missing, settings)
    job = ScoreJob(store, guide, pairs, range(queries, len(guide.vectors)), neighbors, settings)
    with step("scores", sum(record.rows for record in pairs), "pairs") as advance:
        shards.fill("scores", job, range(len(pairs)), advance)
    ranks = [store.frame(each, "scores", ["positive_rank"])["positive_rank"] for each in shards.records["scores"]]
    return sum(int((each >= TOP).sum()) for each in ranks) / max(1, sum(map(len, ranks)))


def _search_document_shards(
    shards: Shards, guide: GuideVectors, numbers: Sequence[int], settings: IndexSettings
) -> dict[int, FileRecord]:
    """Search every document shard for some shards of pairs; returns the files of their neighbors among all.

    A build that is resumed goes on after the last document shard that was searched for all of them.
    """
    store, pairs, files = shards.store, shards.records["pairs"], shards.records["faiss"]
    folders = [store.layout.building / f"neighbors-{number:05d}" for number in range(len(files))]
    paths = [{number: folder / f"shard-{number:05d}.npz" for number in numbers} for folder in folders]
    results = [{n: record for n, path in each.items() if (record := shards.committed(path))} for each in paths]
    first = max((number + 1 for number, each in enumerate(results) if len(each) == len(numbers)), default=0)
    earlier = results[first - 1] if first else {}
    with step("search", len(files[first:]) * sum(pairs[number].rows for number in numbers), "pairs") as advance:
        for number in range(first, len(files)):
            job = SearchJob(store, guide, pairs, files[number], paths[number], earlier, settings)
            unsearched = [each for each in numbers if each not in results[number]]
            new = {each.number: each.record for each in shards.run(job, unsearched, advance) if each.record}
            earlier = results[number] | new
            if number:
                store.drop(folders[number - 1])
    return earlier
