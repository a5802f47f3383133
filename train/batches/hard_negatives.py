"""Hard negatives: those of an anchor's stored neighbours that the judge lets pass, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.memory_map import temporary_array
from ...shared.guide_index.ragged import padded
from ..loss.guide_lookup import guide_view
from ..loss.judges import Judge, PositiveJudge, excess_of_candidates
from ..loss.reranker_judge import RerankerJudge
from ..settings import HardNegativeSettings

BLOCK_PAIRS = 256
# Weighted drawing takes a neighbour in proportion to exp(guide score / this).
DRAW_TEMPERATURE = 0.05


class HardNegatives:
    """The hard negatives of an index's pairs.

    Args:
        index: An open guide index.
        settings: Which neighbours become hard negatives, and how many.
        judge: Decides which neighbours are false negatives; with None, all pass that are no known positives.
        seed: Of the drawing.
        reranker: Orders the neighbours, and decides in the judge's place.

    Attributes:
        counts: (pairs,) int32 how many neighbours of each pair pass.
        epoch: The epoch whose negatives are drawn, counted from 0; to be set.

    Raises:
        SettingsError: The index stores fewer neighbours than are requested.
    """

    def __init__(
        self,
        index: GuideIndex,
        settings: HardNegativeSettings,
        judge: Judge | None,
        seed: int,
        reranker: RerankerJudge | None = None,
    ) -> None:
        self.index, self.settings, self.seed, self.epoch = index, settings, seed, 0
        self._judge, self._reranker = judge, reranker
        if settings.negative_margin is not None:
            margin = (settings.negative_margin, settings.negative_margin_strategy)
            self._judge, self._reranker = PositiveJudge(*margin), reranker and RerankerJudge(reranker.scores, *margin)
        width = int(index.manifest.request.settings["neighbors"])
        if settings.hard_negatives > width - settings.skip_top:
            raise SettingsError(
                f"The index holds {width} neighbours an anchor",
                where=f"--hard-negatives {settings.hard_negatives} --skip-top {settings.skip_top}",
                fix="ask for fewer, or build the index with a greater --neighbors",
            )
        self.counts = np.zeros(len(index), dtype=np.int32)
        self._ids = temporary_array((len(index), width), np.int64)
        self._scores = temporary_array((len(index), width), np.float32)
        for labels, ids, scores in self._neighbors(width):
            passing = self._passing(labels, ids, scores)
            order = np.argsort(~passing, axis=1, kind="stable")
            self.counts[labels] = passing.sum(axis=1)
            self._ids[labels] = np.take_along_axis(np.where(passing, ids, -1), order, axis=1)
            self._scores[labels] = np.take_along_axis(scores, order, axis=1)

    def draw(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw this epoch's negatives of pairs (B,), which follow from seed, epoch and pair id alone.

        Returns:
            (B, H) int64 text ids, -1 where too few neighbours pass, and their (B, H) float32 scores.
        """
        ids, scores = np.asarray(self._ids[labels]), np.asarray(self._scores[labels])
        keys = scores
        if self.settings.draw != "top":  # Gumbel top-k
            randoms = (np.random.default_rng([self.seed, self.epoch, int(label)]) for label in labels)
            keys = np.stack([random.gumbel(size=scores.shape[1]) for random in randoms])
        if self.settings.draw == "weighted":
            keys += scores / DRAW_TEMPERATURE
        order = np.argsort(np.where(ids < 0, np.inf, -keys), axis=1, kind="stable")[:, : self.settings.hard_negatives]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def lacking(self, labels: np.ndarray) -> np.ndarray:
        """Those of some pairs (B,) of which fewer neighbours pass than are requested."""
        return labels[self.counts[labels] < self.settings.hard_negatives]

    def summary(self, labels: np.ndarray) -> str:
        """One line for people on how many neighbours of some pairs (B,) pass."""
        requested, lacking, counts = self.settings.hard_negatives, len(self.lacking(labels)), self.counts[labels]
        tail = f"; {lacking:,} pairs have fewer than {requested} (least {counts.min()})" if lacking else ""
        return f"hard negatives: {counts.mean():.1f} neighbours of a pair pass on average{tail}"

    def _neighbors(self, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield labels (b,), neighbour ids (b, width), -1 for none, and their scores, closest first, block by block."""
        for table in self.index.scores(["pair_id", "neighbor_ids", "neighbor_scores"]):
            for start in range(0, table.num_rows, BLOCK_PAIRS):
                block = table.slice(start, BLOCK_PAIRS)
                labels = block["pair_id"].to_numpy()
                ids = padded(block["neighbor_ids"], width, -1, np.int64)
                scores = padded(block["neighbor_scores"], width, -2.0, np.float32)
                if self._reranker:
                    scores = self._reranker.scores.scores(labels)[:, :width]
                    order = np.argsort(np.where(ids < 0, np.inf, -scores), axis=1, kind="stable")
                    ids, scores = (np.take_along_axis(each, order, axis=1) for each in (ids, scores))
                yield labels, ids, scores

    def _passing(self, labels: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """(b, width) bool: neither a known positive, nor skipped, nor a false negative."""
        passing = (ids >= 0) & (np.arange(ids.shape[1]) >= self.settings.skip_top)
        known, owner = self.index.known_positives(labels)
        base = self.index.manifest.rows["texts"]
        of_row = np.arange(len(labels))[:, None] * base + self.index.content_ids(ids)
        passing &= ~np.isin(of_row, owner * base + known)
        if self._reranker:
            passing &= scores <= self._reranker.thresholds(labels)[:, None]
        elif self._judge is not None:
            pairs = self.index.pairs(labels, 0)
            view = guide_view(self.index, (pairs.anchors[:, None], pairs.positives[:, None], ids), "cpu")
            passing &= excess_of_candidates(self._judge, view).numpy() <= 0
        return passing
