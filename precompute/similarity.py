"""Guide vectors -> what the trainer and the report read: scores, neighbours, positive ranks, clusters, scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from ..shared.schema import SCORES
from ..shared.vectors import RowStore
from . import faiss_index
from .corpus import Corpus
from .search import BLOCK_ROWS, Blocks, Found, count_above, exact_search

# Above this many texts, scales are estimated against a sample of this size.
SCALE_SAMPLE = 65_536
KMEANS_SAMPLE_PER_CLUSTER = 256
RESCORE_ROWS = 512

Neighbors = Callable[[np.ndarray, np.ndarray, int], Found]


@dataclass(frozen=True)
class Space:
    """All guide vectors of a corpus and which of them are documents.

    Attributes:
        vectors: Guide vectors by text id.
        content_ids: (texts,) int64, the smallest text id with the same text.
        queries: How many texts are queries.
        device: Torch device for exact search.
    """

    vectors: RowStore
    content_ids: np.ndarray
    queries: int
    device: str

    @classmethod
    def of(cls, corpus: Corpus, vectors: RowStore, device: str) -> Space:
        """The space of a corpus."""
        return cls(vectors, corpus.texts["content_id"].to_numpy(), corpus.queries, device)

    def document_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and vectors of all documents, block by block."""
        for begin, block in self.vectors.blocks(self.queries, len(self.vectors), BLOCK_ROWS):
            yield np.arange(begin, begin + len(block)), block

    def own_document(self, anchor_ids: np.ndarray) -> np.ndarray:
        """(n,) id of the document with the anchor's own text; -1 where there is none."""
        twins = np.full(self.queries, -1, dtype=np.int64)
        contents = self.content_ids[self.queries :]
        shared = np.flatnonzero(contents < self.queries)
        twins[contents[shared]] = shared + self.queries
        return twins[anchor_ids]


def exact_neighbors(space: Space) -> Neighbors:
    """Neighbours by exact search over all documents, the anchor's own text left out."""

    def find(anchors: np.ndarray, own: np.ndarray, k: int) -> Found:
        return exact_search(anchors, space.document_blocks, k, exclude=own, device=space.device)

    return find


def approximate_neighbors(space: Space, index: faiss_index.faiss.Index) -> Neighbors:
    """Neighbours by the FAISS index, scored again from the stored vectors, the anchor's own text left out."""

    def find(anchors: np.ndarray, own: np.ndarray, k: int) -> Found:
        found = faiss_index.search(index, anchors, k + 1)
        scores = np.where((found.ids < 0) | (found.ids == own[:, None]), -np.inf, _rescore(space, anchors, found.ids))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(found.ids, order, 1)
        return Found(scores.astype(np.float32), np.where(np.isneginf(scores), -1, ids))

    return find


def _rescore(space: Space, anchors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    scores = np.empty(ids.shape, dtype=np.float32)
    for start in range(0, len(ids), RESCORE_ROWS):
        rows = slice(start, start + RESCORE_ROWS)
        vectors = space.vectors.take(np.maximum(ids[rows], 0).ravel()).reshape(*ids[rows].shape, -1)
        scores[rows] = np.einsum("nd,nkd->nk", anchors[rows].astype(np.float32), vectors.astype(np.float32))
    return scores


def score_pairs(
    space: Space, pairs: pl.DataFrame, find: Neighbors, k: int, centroids: np.ndarray, *, exact: bool
) -> pa.Table:
    """The scores of one part of pairs.

    Each anchor is searched once. ``positive_rank`` counts the documents above the positive, the anchor's own text left
    out: all of them where the search is exact, those among the neighbours found where it is not.

    Args:
        space: The guide vectors.
        pairs: pair_id, anchor_id, positive_id, negative_ids.
        find: How to find an anchor's neighbours.
        k: Neighbours an anchor.
        centroids: (clusters, dim); a pair's cluster is that of its anchor.
        exact: Whether ``find`` is exact.
    """
    anchor_ids, row_of_pair = np.unique(pairs["anchor_id"].to_numpy(), return_inverse=True)
    anchors, own = space.vectors.take(anchor_ids).astype(np.float32), space.own_document(anchor_ids)
    neighbors = find(anchors, own, k)
    clusters = np.argmax(anchors @ centroids.T, axis=1).astype(np.int32)

    positive_ids = pairs["positive_id"].to_numpy()
    pair_anchors = anchors[row_of_pair]
    positive_scores = _dots(pair_anchors, space.vectors.take(positive_ids))
    scores, ids = neighbors.scores[row_of_pair], neighbors.ids[row_of_pair]
    ranks = ((scores > positive_scores[:, None]) & (ids != positive_ids[:, None])).sum(axis=1)
    deep = np.flatnonzero(scores[:, -1] > positive_scores)
    if exact and deep.size:  # documents above the positive that are no neighbours remain to be counted
        ranks[deep] = count_above(
            pair_anchors[deep],
            positive_scores[deep],
            space.document_blocks,
            own=positive_ids[deep],
            exclude=own[row_of_pair][deep],
            device=space.device,
        )
    negatives = pairs["negative_ids"]
    repeats = negatives.list.len().to_numpy()
    negative_ids = negatives.explode(empty_as_null=False).to_numpy()
    negative_scores = _dots(np.repeat(pair_anchors, repeats, axis=0), space.vectors.take(negative_ids))
    found = ids >= 0
    return pa.table(
        {
            "pair_id": pairs["pair_id"].to_numpy(),
            "positive_score": positive_scores,
            "negative_scores": _lists(negative_scores, repeats),
            "neighbor_ids": _lists(ids[found], found.sum(axis=1)),
            "neighbor_scores": _lists(scores[found], found.sum(axis=1)),
            "positive_rank": ranks,
            "cluster": clusters[row_of_pair],
        }
    ).cast(SCORES)


def _dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", left, right.astype(np.float32)).astype(np.float32)


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def anchor_centroids(space: Space, clusters: int | None, seed: int) -> np.ndarray:
    """Centroids of the anchors: ``clusters`` of them, by default the square root of how many anchors there are."""
    count = min(clusters or round(np.sqrt(space.queries)), space.queries)
    size = min(space.queries, KMEANS_SAMPLE_PER_CLUSTER * count)
    sample = np.sort(np.random.default_rng(seed).choice(space.queries, size=size, replace=False))
    return faiss_index.kmeans(space.vectors.take(sample), count, seed)


@dataclass(frozen=True)
class ScaleReference:
    """The texts that scales are measured against: all unique texts, or a seeded sample of them.

    Attributes:
        ids: (m,) text ids, ascending, one for each text.
        k: Which nearest text of the whole corpus is meant.
        rank: Which nearest of ``ids`` stands for it: ``k`` scaled down with the sample.
    """

    ids: np.ndarray
    k: int
    rank: int

    @classmethod
    def of(cls, space: Space, k: int, seed: int, sample: int = SCALE_SAMPLE) -> ScaleReference:
        """Draw the reference of a corpus."""
        unique = np.flatnonzero(space.content_ids == np.arange(len(space.content_ids)))
        ids = unique
        if len(unique) > sample:
            ids = np.sort(np.random.default_rng(seed).choice(unique, size=sample, replace=False))
        wanted = min(k, len(unique) - 1)
        return cls(ids, k, max(1, min(round(wanted * len(ids) / len(unique)), len(ids) - 1)))


def scales(space: Space, reference: ScaleReference, start: int, stop: int) -> np.ndarray:
    """Each text's guide score with its K-th nearest other text: (stop - start,) float32.

    A corpus of one text has no other; its scale is then 0.
    """

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for begin in range(0, len(reference.ids), BLOCK_ROWS):
            ids = reference.ids[begin : begin + BLOCK_ROWS]
            yield ids, space.vectors.take(ids)

    search: Blocks = blocks
    found = exact_search(
        space.vectors.take(np.arange(start, stop)),
        search,
        reference.rank,
        exclude=space.content_ids[start:stop],
        device=space.device,
    )
    last = found.scores[:, -1]
    return np.where(np.isneginf(last), 0.0, last).astype(np.float32)
