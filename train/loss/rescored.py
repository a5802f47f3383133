"""A reranker's scores by pair id, as loss and hard negatives ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded
from ...shared.guide_index.reranker_scores import RescoredFolder
from .scratch import scratch


class RerankedPairs(NamedTuple):
    """The documents that a reranker has read with the anchors of B pairs.

    Attributes:
        positives: (B,) float32 scores of the pairs' own positives.
        documents: (B, W) int64 text ids: the stored neighbours, then the pair's own negatives; -1 for none.
        scores: (B, W) float32 of these.
    """

    positives: np.ndarray
    documents: np.ndarray
    scores: np.ndarray


class Rescored:
    """The scores that `gistcache rescore` has written, laid out by pair id in a temporary file.

    Args:
        folder: Its folder.
        index: The open index that it was made of.

    Attributes:
        neighbors: How many stored neighbours an anchor has at most.

    Raises:
        StaleIndexError: It was made of another index.
        IndexFaultError: It is not finished, or damaged.
    """

    def __init__(self, folder: str | Path, index: GuideIndex) -> None:
        self.index, self.folder = index, RescoredFolder.open(Path(folder), index)
        self.neighbors, negatives = int(index.manifest.request.settings["neighbors"]), index.max_negatives
        self._ids = scratch((len(index), self.neighbors), np.int64)
        self._positives = scratch((len(index),), np.float32)
        self._scores = scratch((len(index), self.neighbors + negatives), np.float32)
        for table in index.scores(["pair_id", "neighbor_ids"]):
            self._ids[table["pair_id"].to_numpy()] = padded(table["neighbor_ids"], self.neighbors, -1, np.int64)
        for table in self.folder.tables():
            labels = table["pair_id"].to_numpy()
            self._positives[labels] = table["positive_score"].to_numpy()
            parts = (table["neighbor_scores"], self.neighbors), (table["negative_scores"], negatives)
            self._scores[labels] = np.column_stack([padded(lists, width, 0, np.float32) for lists, width in parts])

    def take(self, labels: np.ndarray) -> RerankedPairs:
        """What there is of pairs (B,)."""
        documents = np.column_stack([self._ids[labels], self.index.pairs(labels).negatives])
        return RerankedPairs(np.asarray(self._positives[labels]), documents, np.asarray(self._scores[labels]))
