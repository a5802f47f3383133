"""What the report reads of an index: ranks of all pairs, and scores and texts of some of them.

Score shards are read one by one, texts by id: memory grows with the sample, not with the index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded
from ...shared.guide_index.texts import Texts
from .page import clipped

SEED = 0
EXCERPT_CHARACTERS = 300
# The least rank of each bar, and its name.
RANK_BARS = {0: "0", 1: "1 to 4", 5: "5 to 9", 10: "10 to 49", 50: "50 to 99", 100: "100 to 999", 1_000: "1,000+"}


def positive_ranks(index: GuideIndex, worst: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs each of RANK_BARS has, (bars,) int64; ids of the ``worst`` pairs, (n,) int64, ascending.

    The worst are those whose positives rank lowest, and of equal ranks those with the lowest guide score.
    """
    names = ("pair_id", "positive_rank", "positive_score")
    counts, lowest = np.zeros(len(RANK_BARS), dtype=np.int64), np.empty((0, len(names)))
    for table in index.scores([*names]):
        pairs = np.stack([table[name].to_numpy() for name in names], axis=1)
        counts += np.histogram(pairs[:, 1], [*RANK_BARS, np.inf])[0]
        lowest = np.concatenate([lowest, pairs[pairs[:, 1] > 0]])
        lowest = lowest[np.lexsort((lowest[:, 2], -lowest[:, 1]))[:worst]]
    return counts, np.sort(lowest[:, 0].astype(np.int64))


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with what the index stores of them, (n,) each; ids and ranks are int64, scores float32.

    Attributes:
        ranks: How many documents the guide puts above the positive.
        closest_ids: The document closest to the anchor that is no known positive of it; -1 for none.
        closest_scores: Guide scores of anchor and that document; NaN for none.
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
        requested = pc.field("pair_id").isin(pair_ids)
        table = pa.concat_tables(shard.filter(requested) for shard in index.scores())
        scores, ranks = (table[name].to_numpy() for name in ("positive_score", "positive_rank"))
        width = index.manifest.request.settings["neighbors"] + 1  # the last column is always empty: no neighbor
        neighbors = padded(table["neighbor_ids"], width, -1, np.int64)
        neighbor_scores = padded(table["neighbor_scores"], width, np.nan, np.float32)
        known, owner = index.known_positives(pair_ids)
        texts, rows = index.manifest.rows["texts"], np.arange(len(neighbors))
        keys = rows[:, None] * texts + index.content_ids(neighbors)
        closest = (rows, (np.isin(keys, owner * texts + known) & (neighbors >= 0)).argmin(axis=1))
        ids = index.pairs(pair_ids, negatives=0)
        return cls(pair_ids, ids.anchors, ids.positives, scores, ranks, neighbors[closest], neighbor_scores[closest])

    def __len__(self) -> int:
        return len(self.pair_ids)


def excerpts(index: GuideIndex, ids: np.ndarray) -> dict[int, str]:
    """The beginnings of texts by text id; -1 is no text."""
    ids = np.unique(ids[ids >= 0])
    texts = zip(ids.tolist(), Texts(index).take(ids).to_pylist(), strict=True)
    return {-1: "none", **{id_: clipped(text, EXCERPT_CHARACTERS) for id_, text in texts}}
