"""What the report reads of an index: ranks of all pairs, and scores and texts of some of them.

Score shards are read one by one, texts by id: memory grows with the sample, not with the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded
from ...shared.guide_index.texts import Texts

SEED = 0
# The least rank of each bar; the last bar has no end.
RANK_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000, 100_000)
EXCERPT_CHARACTERS = 1_000


def positive_ranks(index: GuideIndex, worst: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the ranks of the positives of all pairs, and name the pairs whose positives rank lowest.

    Args:
        index: An open index.
        worst: How many pairs to name.

    Returns:
        How many pairs have a rank from each of RANK_EDGES to the next, (edges,) int64; and the ids of the pairs whose
        positives are furthest down, of equal ranks those with the lowest guide score, ascending.
    """
    counts, lowest = np.zeros(len(RANK_EDGES), dtype=np.int64), np.empty((0, 3))
    for table in index.scores(["pair_id", "positive_rank", "positive_score"]):
        ranks = table["positive_rank"].to_numpy()
        counts += np.bincount(np.searchsorted(RANK_EDGES, ranks, side="right") - 1, minlength=len(RANK_EDGES))
        rows = np.stack([table["pair_id"].to_numpy(), ranks, table["positive_score"].to_numpy()], axis=1)
        lowest = np.concatenate([lowest, rows[ranks > 0]])
        lowest = lowest[np.lexsort((lowest[:, 2], -lowest[:, 1]))[:worst]]
    return counts, np.sort(lowest[:, 0].astype(np.int64))


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with what the index stores of them.

    Attributes:
        pair_ids: (n,) int64, ascending.
        anchors: (n,) int64 text ids.
        positives: (n,) int64 text ids.
        scores: (n,) float32 guide scores of anchor and positive.
        ranks: (n,) int64 documents that the guide puts above the positive.
        closest_ids: (n,) int64 the document closest to the anchor that is no known positive of it; -1 for none.
        closest_scores: (n,) float32 guide scores of anchor and that document; NaN for none.
    """

    pair_ids: np.ndarray
    anchors: np.ndarray
    positives: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    closest_ids: np.ndarray
    closest_scores: np.ndarray

    @classmethod
    def read(cls, index: GuideIndex, pair_ids: np.ndarray) -> ScoredPairs:
        """Read the stored scores of the pairs with these ids, which must ascend."""
        table = pa.concat_tables(_rows(index, pair_ids))
        ids = index.pairs(pair_ids, negatives=0)
        # A column more than there can be neighbors: it stands for none.
        width = index.manifest.request.settings["neighbors"] + 1
        neighbors = padded(table["neighbor_ids"], width, -1, np.int64)
        neighbor_scores = padded(table["neighbor_scores"], width, np.nan, np.float32)
        closest = (np.arange(len(neighbors)), _first_non_positive(index, pair_ids, neighbors))
        return cls(
            pair_ids,
            ids.anchors,
            ids.positives,
            table["positive_score"].to_numpy(),
            table["positive_rank"].to_numpy(),
            neighbors[closest],
            neighbor_scores[closest],
        )

    def __len__(self) -> int:
        return len(self.pair_ids)


def _rows(index: GuideIndex, pair_ids: np.ndarray) -> Iterator[pa.Table]:
    start = 0
    columns = ["positive_score", "neighbor_ids", "neighbor_scores", "positive_rank"]
    for table in index.scores(columns):
        chosen = pair_ids[(pair_ids >= start) & (pair_ids < start + table.num_rows)] - start
        start += table.num_rows
        yield table.take(pa.array(chosen))


def _first_non_positive(index: GuideIndex, pair_ids: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """(n,) which neighbor (n, K) is the first that is no known positive of the pair's anchor."""
    known, owner = index.known_positives(pair_ids)
    texts = index.manifest.rows["texts"]
    keys = np.arange(len(neighbors))[:, None] * texts + index.content_ids(neighbors)
    return (np.isin(keys, owner * texts + known) & (neighbors >= 0)).argmin(axis=1)


def excerpts(index: GuideIndex, ids: np.ndarray) -> dict[int, str]:
    """The beginnings of texts by text id, ids below 0 left out."""
    ids = np.unique(ids[ids >= 0])
    texts = Texts(index).take(ids).to_pylist() if len(ids) else []
    return {id_: text[:EXCERPT_CHARACTERS] for id_, text in zip(ids.tolist(), texts, strict=True)}


def clipped(text: str, limit: int) -> str:
    """A text, or its first ``limit`` characters and an ellipsis."""
    return text if len(text) <= limit else f"{text[:limit]}…"
