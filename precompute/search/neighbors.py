"""The closest documents of every anchor, slice of documents by slice, each part of pairs alone.

A slice has its own FAISS file and fits one machine. What is found in a slice is merged with what the slices before it
gave, so that a part in flight needs no more than its own top k, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ...shared.guide_index.layout import TWIN
from ...shared.guide_index.memory_map import MappedVectors
from . import faiss_index
from .exact import BLOCK_ROWS, Found, VectorBlocks, count_above, exact_search
from .guide_vectors import GuideVectors

RESCORE_ROWS = 512


class DocumentShard(NamedTuple):
    """Documents that are searched together: text ids ``start .. stop``."""

    number: int
    start: int
    stop: int


def document_shards(queries: int, texts: int, rows: int) -> list[DocumentShard]:
    """All documents in slices of ``rows``."""
    starts = range(queries, texts, rows)
    return [DocumentShard(number, start, min(start + rows, texts)) for number, start in enumerate(starts)]


class AnchorsOfPart(NamedTuple):
    """The anchors of P pairs, each once, and the pairs' positives.

    Attributes:
        row_of_pair: (P,) which anchor each pair has.
        vectors: (n, dim) float32 guide vectors of the anchors.
        own: (n,) id of the document with the anchor's own text, which is never found; -1 where there is none.
        positive_ids: (P,) int64.
        positive_scores: (P,) float32 guide score of anchor and positive.
    """

    row_of_pair: np.ndarray
    vectors: np.ndarray
    own: np.ndarray
    positive_ids: np.ndarray
    positive_scores: np.ndarray

    @classmethod
    def of(cls, space: GuideVectors, pairs: pl.DataFrame) -> AnchorsOfPart:
        """Look up the pairs of a part: anchor_id, positive_id."""
        anchor_ids, row_of_pair = np.unique(pairs["anchor_id"].to_numpy(), return_inverse=True)
        vectors = space.vectors.take(anchor_ids).astype(np.float32)
        positive_ids = pairs["positive_id"].to_numpy()
        scores = dots(vectors[row_of_pair], space.vectors.take(positive_ids))
        return cls(row_of_pair, vectors, space.contents.take(anchor_ids)[:, TWIN], positive_ids, scores)


class PartFound(NamedTuple):
    """What has been found for a part.

    Attributes:
        scores: (n, k) float32, best first; -inf where there are fewer.
        ids: (n, k) int64 text ids; -1 where there are fewer.
        above: (P,) int64, documents above each pair's positive; only exact search counts them.
    """

    scores: np.ndarray
    ids: np.ndarray
    above: np.ndarray

    def merged(self, later: PartFound) -> PartFound:
        """With what a later slice gave; of equal scores the earlier document is kept."""
        scores, ids = np.hstack([self.scores, later.scores]), np.hstack([self.ids, later.ids])
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.scores.shape[1]]
        return PartFound(
            np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1), self.above + later.above
        )

    def write(self, to: Path) -> None:
        """As one ``.npz``."""
        with to.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> PartFound:
        """Read it back."""
        with np.load(path, allow_pickle=False) as held:
            return cls(held["scores"], held["ids"], held["above"])


Search = Callable[[np.ndarray, np.ndarray, int], Found]


def exact_search_in(space: GuideVectors, documents: DocumentShard, device: str) -> Search:
    """Exact search in a slice, the anchor's own text left out."""

    def find(anchors: np.ndarray, own: np.ndarray, k: int) -> Found:
        return exact_search(anchors, _blocks(space, documents), k, exclude=own, device=device)

    return find


def approximate_search_in(vectors: MappedVectors, index: faiss_index.faiss.Index) -> Search:
    """Search by a slice's FAISS index, scored again from the stored vectors, the anchor's own text left out."""

    def find(anchors: np.ndarray, own: np.ndarray, k: int) -> Found:
        found = faiss_index.search(index, anchors, k + 1)
        scores = np.where((found.ids < 0) | (found.ids == own[:, None]), -np.inf, _rescore(vectors, anchors, found.ids))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(found.ids, order, 1)
        return Found(scores.astype(np.float32), np.where(np.isneginf(scores), -1, ids))

    return find


def found_in_slice(
    space: GuideVectors,
    part: AnchorsOfPart,
    documents: DocumentShard,
    search: Search,
    k: int,
    *,
    exact: bool,
    device: str,
) -> PartFound:
    """The k closest documents of a slice to each anchor, and how many of the slice are above each pair's positive."""
    found = search(part.vectors, part.own, k)
    scores, ids = found.scores[part.row_of_pair], found.ids[part.row_of_pair]
    above = ((scores > part.positive_scores[:, None]) & (ids != part.positive_ids[:, None])).sum(axis=1)
    deep = np.flatnonzero(scores[:, -1] > part.positive_scores)
    if exact and deep.size:  # documents above the positive that are no neighbours remain to be counted
        above[deep] = count_above(
            part.vectors[part.row_of_pair[deep]],
            part.positive_scores[deep],
            _blocks(space, documents),
            own=part.positive_ids[deep],
            exclude=part.own[part.row_of_pair[deep]],
            device=device,
        )
    return PartFound(found.scores, found.ids, above)


def _blocks(space: GuideVectors, documents: DocumentShard) -> VectorBlocks:
    """The vectors of a slice, block by block."""
    return partial(space.vectors.blocks, documents.start, documents.stop, BLOCK_ROWS)


def dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Guide scores row by row: (n, dim) float32 and (n, dim) -> (n,) float32."""
    return np.einsum("nd,nd->n", left, right.astype(np.float32)).astype(np.float32)


def _rescore(vectors: MappedVectors, anchors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    scores = np.empty(ids.shape, dtype=np.float32)
    for start in range(0, len(ids), RESCORE_ROWS):
        rows = slice(start, start + RESCORE_ROWS)
        found = vectors.take(np.maximum(ids[rows], 0).ravel()).reshape(*ids[rows].shape, -1)
        scores[rows] = np.einsum("nd,nkd->nk", anchors[rows].astype(np.float32), found.astype(np.float32))
    return scores
