"""The closest documents of every anchor, one document shard after the other, each shard of pairs separately.

A document shard has its own FAISS file and fits one machine. Its results are merged with those of the document shards
before it, so that a worker needs no more than the top k of its own pairs, whatever the size of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import polars as pl

from ...shared.guide_index.layout import TWIN
from ...shared.guide_index.memory_map import MappedRows, MappedVectors
from . import faiss_index
from .exact import BLOCK_ROWS, SearchResult, count_above, exact_search

RESCORE_ROWS = 512


@dataclass(frozen=True)
class GuideVectors:
    """Guide vectors by text id; queries come first, documents after them.

    Attributes:
        vectors: (texts, dim), memory-mapped.
        contents: (texts, 2) int64: the smallest id with the same text, and the same text's id in the other role.
        queries: The number of queries.
    """

    vectors: MappedVectors
    contents: MappedRows
    queries: int


class DocumentShard(NamedTuple):
    """Documents that are searched together: text ids ``start .. stop``."""

    number: int
    start: int
    stop: int


def document_shards(queries: int, texts: int, rows: int) -> list[DocumentShard]:
    """All documents in document shards of ``rows``."""
    starts = range(queries, texts, rows)
    return [DocumentShard(number, start, min(start + rows, texts)) for number, start in enumerate(starts)]


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
        scores = dots(vectors[row_of_pair], guide.vectors.take(positive_ids))
        return cls(row_of_pair, vectors, guide.contents.take(anchor_ids)[:, TWIN], positive_ids, scores)


class ShardNeighbors(NamedTuple):
    """The neighbors of a shard of P pairs with n anchors, among the documents searched so far.

    Attributes:
        scores: (n, k) float32, best first; -inf where there are fewer.
        ids: (n, k) int64 text ids; -1 where there are fewer.
        above: (P,) int64, documents above each pair's positive; only exact search counts them all.
    """

    scores: np.ndarray
    ids: np.ndarray
    above: np.ndarray

    def merged(self, later: ShardNeighbors) -> ShardNeighbors:
        """Merged with a later document shard's; of equal scores the earlier document comes first."""
        scores, ids = np.hstack([self.scores, later.scores]), np.hstack([self.ids, later.ids])
        return ShardNeighbors(*_best(scores, ids, self.scores.shape[1]), self.above + later.above)

    def write(self, path: Path) -> None:
        """Write one ``.npz``."""
        with path.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> ShardNeighbors:
        """Read an ``.npz`` back."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["scores"], arrays["ids"], arrays["above"])


def neighbors_in(
    guide: GuideVectors, anchors: ShardAnchors, documents: DocumentShard, k: int, index: faiss.Index | None, device: str
) -> ShardNeighbors:
    """The k closest documents of a document shard to each anchor, and how many of it are above each positive.

    Args:
        guide: The guide vectors.
        anchors: The anchors and positives of a shard of pairs.
        documents: The document shard.
        k: Documents for each anchor.
        index: The FAISS index of the document shard; None searches exactly, on ``device``.
        device: Torch device.
    """
    blocks = partial(guide.vectors.blocks, documents.start, documents.stop, BLOCK_ROWS)
    if index is None:
        result = exact_search(anchors.vectors, blocks, k, exclude=anchors.twins, device=device)
    else:
        result = _approximate_search(guide.vectors, index, anchors, k)
    scores, ids = result.scores[anchors.row_of_pair], result.ids[anchors.row_of_pair]
    above = ((scores > anchors.positive_scores[:, None]) & (ids != anchors.positive_ids[:, None])).sum(axis=1)
    deep = np.flatnonzero(scores[:, -1] > anchors.positive_scores)
    if index is None and deep.size:  # more documents than the k neighbors are above the positive
        rows, own, limits = anchors.row_of_pair[deep], anchors.positive_ids[deep], anchors.positive_scores[deep]
        vectors, twins = anchors.vectors[rows], anchors.twins[rows]
        above[deep] = count_above(vectors, limits, blocks, own=own, exclude=twins, device=device)
    return ShardNeighbors(result.scores, result.ids, above)


def _approximate_search(vectors: MappedVectors, index: faiss.Index, anchors: ShardAnchors, k: int) -> SearchResult:
    """Search a FAISS index without the anchors' twins; scores are computed again from the stored vectors."""
    ids = faiss_index.search(index, anchors.vectors, k + 1).ids
    excluded = (ids < 0) | (ids == anchors.twins[:, None])
    scores, ids = _best(np.where(excluded, -np.inf, _rescore(vectors, anchors.vectors, ids)), ids, k)
    return SearchResult(scores.astype(np.float32), np.where(np.isneginf(scores), -1, ids))


def _best(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each row."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
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
