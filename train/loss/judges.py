"""Judges of false negatives: how far each candidate of a batch is above what a true negative would score.

A judge has two functions of the guide's view of a batch and of row numbers. ``excess`` is each candidate's distance
above the threshold on the judge's own scale; above 0 it is a false negative, and that of targets has no meaning.
``thresholds`` is the threshold of each row, (R,). The loss and the choice of hard negatives use the same judges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...shared.candidates import Blocks, PairVectors, similarities
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.sampling import evenly_spread
from ...shared.types import MarginStrategy
from ..settings import JudgeSettings

SAMPLED_PAIRS = 16_384


class GuideView(NamedTuple):
    """What the guide knows about a batch, float32: unit vectors, and local densities (B,), (B,), (N,)."""

    vectors: PairVectors
    density: PairVectors


def thresholds(positive_scores: Tensor, margin: float, strategy: MarginStrategy) -> Tensor:
    """Compute the score above which a candidate is a false negative, from that of anchor and positive, s.

    ``absolute``: ``s - margin``; ``relative``: ``s - abs(s) * margin`` (Solatorio 2024, arXiv 2402.16829, section 3,
    with the margins of sentence-transformers' ``GISTEmbedLoss``).
    """
    return positive_scores - (positive_scores.abs() * margin if strategy == "relative" else margin)


class PositiveJudge(NamedTuple):
    """The paper's judge: a candidate that the guide scores above the anchor's own positive is a false negative."""

    margin: float = 0.0
    strategy: MarginStrategy = "absolute"

    def excess(self, guide: GuideView, rows: Tensor, **contrast: bool) -> Blocks:
        """Score the candidates against the row's threshold; ``contrast`` as ``similarities`` takes it."""
        scores = similarities(guide.vectors, rows, **contrast)
        limits = thresholds(scores.ap.gather(1, rows[:, None]), self.margin, self.strategy)
        return scores.map(lambda block: block - limits)

    def thresholds(self, guide: GuideView, rows: Tensor) -> Tensor:
        """Compute the thresholds of guide scores."""
        scores = (guide.vectors.anchors[rows] * guide.vectors.positives[rows]).sum(1)
        return thresholds(scores, self.margin, self.strategy)


class NeighborhoodJudge(NamedTuple):
    """Two pairs whose ``relatedness`` is above the threshold have no negatives in each other; see docs/JUDGE.md."""

    threshold: float

    def excess(
        self, guide: GuideView, rows: Tensor, *, contrast_anchors: bool = True, contrast_positives: bool = True
    ) -> Blocks:
        """Compare relatedness with the threshold; all candidates that belong to one pair are judged together."""
        above, of_negatives = (values - self.threshold for values in relatedness(guide, rows))
        none = above[:, :0]
        return Blocks(above, above if contrast_anchors else none, above if contrast_positives else none, of_negatives)

    def thresholds(self, guide: GuideView, rows: Tensor) -> Tensor:
        """Repeat the threshold."""
        return guide.vectors.anchors.new_full(rows.shape, self.threshold)


Judge = PositiveJudge | NeighborhoodJudge


def relatedness(guide: GuideView, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute how closely pairs belong together, relative to the local density of their texts.

    A guide score g(x, y) is compared with what is usual around x and y: ``g(x, y) - (r(x) + r(y)) / 2``, with r the
    local density (cross-domain similarity local scaling, Conneau et al. 2018, arXiv 1710.04087, up to the factor two
    and with the K-th score for the mean of the first K). Summed over the four scores between pairs i and j:

        z_ij = g(a_i, p_j) + g(a_j, p_i) + g(a_i, a_j) + g(p_i, p_j) - r(a_i) - r(p_i) - r(a_j) - r(p_j)

    The four scores are one product, ``(a_i + p_i) . (a_j + p_j)``. A negative n has no partner: its two scores with
    pair i count twice, ``2 (g(a_i, n) + g(p_i, n)) - r(a_i) - r(p_i) - 2 r(n)``.

    Args:
        guide: The batch, B pairs and N negatives.
        rows: (R,) int64 number of each row's pair in the batch.

    Returns:
        (R, B) of each row's pair with every pair, and (R, N) with every negative.
    """
    vectors, density = guide
    sums = vectors.anchors + vectors.positives
    usual = density.anchors + density.positives
    of_pairs = sums[rows] @ sums.T - usual[rows, None] - usual
    of_negatives = 2 * (sums[rows] @ vectors.negatives.T - density.negatives) - usual[rows, None]
    return of_pairs, of_negatives


def excess_of_candidates(judge: Judge, guide: GuideView) -> Tensor:
    """Judge each pair's own candidates, for choosing hard negatives: (B, M).

    Args:
        judge: Any judge.
        guide: (B, 1, D) anchors, (B, 1, D) positives, (B, M, D) candidates, and their density (B, 1), (B, 1), (B, M).
    """
    only_row = torch.zeros(1, dtype=torch.int64)

    def of_pair(view: GuideView) -> Tensor:
        return judge.excess(view, only_row, contrast_anchors=False, contrast_positives=False).an[0]

    return torch.vmap(of_pair)(guide)


def usual_relatedness(index: GuideIndex, quantile: float = 0.5) -> float:
    """Choose the threshold of an index: as related as an anchor is to its own positive, in the middle.

    Four times (for the four scores of two pairs) the median over pairs, or another quantile, of
    ``g(a, p) - (r(a) + r(p)) / 2``. It follows guide, K and corpus: where positives are hardly closer than other texts
    (questions of one intent) it is near 0, where they stand out (a function's documentation) far above.

    Args:
        index: An open index; up to 16,384 of its pairs are read, evenly spread.
        quantile: 0 to 1; a lower one masks more.
    """
    ids = index.pairs(evenly_spread(len(index), SAMPLED_PAIRS), 0)
    anchors, positives = (index.vectors(each).astype(np.float32) for each in (ids.anchors, ids.positives))
    scores = np.einsum("nd,nd->n", anchors, positives)
    usual = (index.density(ids.anchors) + index.density(ids.positives)) / 2
    return 4 * float(np.quantile(scores - usual, quantile))


def make_judge(settings: JudgeSettings, index: GuideIndex) -> Judge:
    """Make the judge of these settings for an index."""
    if settings.judge == "positive":
        return PositiveJudge(settings.margin, settings.margin_strategy)
    threshold = settings.judge_threshold
    if threshold is None:
        threshold = usual_relatedness(index, settings.judge_quantile)
    return NeighborhoodJudge(threshold - settings.margin)
