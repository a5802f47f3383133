"""What the report reads of an index: ranks of all pairs, and everything about a seeded sample of them.

Score shards are read part by part, vectors and texts by id: memory grows with the sample, not with the index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded
from ...shared.guide_index.texts import Texts
from ...shared.sampling import sample_of

SEED = 0
# The least rank of each bar; the last bar has no end.
RANK_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000, 100_000)
EXCERPT_CHARACTERS = 4_000


def sampled_pairs(index: GuideIndex, most: int) -> np.ndarray:
    """At most ``most`` pair ids, drawn with a fixed seed: (n,) int64, ascending."""
    return sample_of(len(index), most, SEED)


def positive_ranks(index: GuideIndex, worst: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the guide puts the positives of all pairs.

    Args:
        index: An open index.
        worst: How many pairs to name.

    Returns:
        How many pairs have a rank from each of RANK_EDGES to the next, (edges,) int64; and the ids of the pairs whose
        positives are furthest down, of equal ranks those with the lowest guide score, ascending.
    """
    counts, held = np.zeros(len(RANK_EDGES), dtype=np.int64), np.empty((0, 3))
    for table in index.scores(["pair_id", "positive_rank", "positive_score"]):
        ranks = table["positive_rank"].to_numpy()
        counts += np.bincount(np.searchsorted(RANK_EDGES, ranks, side="right") - 1, minlength=len(RANK_EDGES))
        rows = np.stack([table["pair_id"].to_numpy(), ranks, table["positive_score"].to_numpy()], axis=1)
        held = np.concatenate([held, rows[ranks > 0]])
        held = held[np.lexsort((held[:, 2], -held[:, 1]))[:worst]]
    return counts, np.sort(held[:, 0].astype(np.int64))


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with what the index stores of them.

    Attributes:
        pair_ids: (n,) int64, ascending.
        anchors: (n,) int64 text ids.
        positives: (n,) int64 text ids.
        scores: (n,) float32 guide scores of anchor and positive.
        ranks: (n,) int64 documents that the guide puts above the positive.
        clusters: (n,) int32.
        neighbors: (n, K) int64 closest documents of the anchor, best first; -1 for none.
        neighbor_scores: (n, K) float32; NaN for none.
        closest: (n,) which neighbour is the closest that is no known positive of the anchor; -1 where none is.
    """

    pair_ids: np.ndarray
    anchors: np.ndarray
    positives: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    clusters: np.ndarray
    neighbors: np.ndarray
    neighbor_scores: np.ndarray
    closest: np.ndarray

    @classmethod
    def read(cls, index: GuideIndex, pair_ids: np.ndarray) -> ScoredPairs:
        """The stored scores of the pairs with these ids, which must ascend."""
        table = pa.concat_tables(_rows(index, pair_ids))
        ids, width = index.pairs(pair_ids, negatives=0), index.manifest.request.settings["neighbors"]
        neighbors = padded(table["neighbor_ids"], width, -1, np.int64)
        return cls(
            pair_ids,
            ids.anchors,
            ids.positives,
            table["positive_score"].to_numpy(),
            table["positive_rank"].to_numpy(),
            table["cluster"].to_numpy(),
            neighbors,
            padded(table["neighbor_scores"], width, np.nan, np.float32),
            _closest(index, pair_ids, neighbors),
        )

    def __len__(self) -> int:
        return len(self.pair_ids)

    @property
    def closest_ids(self) -> np.ndarray:
        """(n,) text ids of ``closest``; -1 for none."""
        return self._of_closest(self.neighbors, -1)

    @property
    def closest_scores(self) -> np.ndarray:
        """(n,) guide scores of ``closest``; NaN for none."""
        return self._of_closest(self.neighbor_scores, np.nan)

    def _of_closest(self, values: np.ndarray, none: float) -> np.ndarray:
        return np.where(self.closest < 0, none, values[np.arange(len(values)), self.closest])


def _rows(index: GuideIndex, pair_ids: np.ndarray) -> Iterator[pa.Table]:
    start = 0
    columns = ["positive_score", "neighbor_ids", "neighbor_scores", "positive_rank", "cluster"]
    for table in index.scores(columns):
        chosen = pair_ids[(pair_ids >= start) & (pair_ids < start + table.num_rows)] - start
        start += table.num_rows
        yield table.take(pa.array(chosen))


def _closest(index: GuideIndex, pair_ids: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    known, owner = index.known_positives(pair_ids)
    texts = index.manifest.rows["texts"]
    keys = np.arange(len(neighbors))[:, None] * texts + index.content_ids(neighbors)
    positive = np.isin(keys, owner * texts + known) | (neighbors < 0)
    return np.where(positive.all(axis=1), -1, positive.argmin(axis=1))


def principal_plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Vectors (n, dim) on their first two principal components: (n, 2), and the share of the variance these have."""
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    flat[:, : min(2, len(values))] = left[:, :2] * values[:2]
    # The sign of a component is arbitrary: the largest value is made positive.
    flat *= np.where(flat[np.abs(flat).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return flat, float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))


class Excerpt(NamedTuple):
    """The beginning of a text, and how many characters the whole has."""

    text: str
    characters: int


def excerpts(index: GuideIndex, ids: np.ndarray) -> dict[int, Excerpt]:
    """The beginnings of texts by text id, ids below 0 left out."""
    ids = np.unique(ids[ids >= 0])
    texts = Texts(index).take(ids).to_pylist() if len(ids) else []
    return {id_: Excerpt(text[:EXCERPT_CHARACTERS], len(text)) for id_, text in zip(ids.tolist(), texts, strict=True)}


def clipped(text: str, limit: int) -> str:
    """The beginning of a text, so long that its JSON, as the page has it, has at most ``limit`` bytes."""
    head = text[:limit]
    while len(json.dumps(head, ensure_ascii=False).encode(errors="replace")) + 5 * sum(map(head.count, "<>&'")) > limit:
        head = head[: len(head) * 9 // 10]
    return text if head == text else f"{head}…"
