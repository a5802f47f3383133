"""Loss terms that learn from the guide's scores themselves, over cached vectors. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...shared.candidates import Blocks, PairVectors, similarities
from ..settings import DistillationSettings


def guide_kl(student: Tensor, guide: Tensor, leaves: Tensor) -> Tensor:
    """KL divergence of the student's distribution over a row's candidates from the guide's, summed over rows.

    ``sum_c P(c) (log P(c) - log Q(c))``, P the softmax of the guide's scores and Q of the student's (Hinton et al.
    2015, arXiv 1503.02531, without the factor of squared temperature).

    Args:
        student: (R, C) similarities over the student's temperature.
        guide: (R, C) guide scores over the guide's temperature.
        leaves: (R, C) bool, candidates that take no part; each row keeps one at least.
    """
    ours, theirs = (F.log_softmax(each.masked_fill(leaves, -torch.inf), dim=1) for each in (student, guide))
    difference = torch.where(leaves, 0.0, theirs - ours.masked_fill(leaves, 0.0))
    return (theirs.exp() * difference.masked_fill(leaves, 0.0)).sum()


def margin_mse(student: Tensor, guide: Tensor, held: Tensor) -> Tensor:
    """MarginMSE (Hofstätter et al. 2020, arXiv 2010.02666, eq. 3), a mean over each row's negatives, summed over rows.

    Args:
        student: (R, 1 + K) similarities of anchor and positive, then of anchor and each of its own negatives.
        guide: (R, 1 + K) the same of the guide.
        held: (R, K) bool, which negatives there are.
    """
    ours, theirs = (each[:, :1] - each[:, 1:] for each in (student, guide))
    squared = torch.where(held, (ours - theirs) ** 2, 0.0)
    return (squared.sum(1) / held.sum(1).clamp(min=1)).sum()


def regression(student: Tensor, guide: Tensor, linear: Tensor) -> Tensor:
    """One minus the cosine between mapped student vectors and guide vectors, summed over rows.

    Up to a factor of two the squared distance of unit vectors, as LEAF has it (arXiv 2509.12539).

    Args:
        student: (R, D) unit vectors.
        guide: (R, E) unit vectors.
        linear: (E, D) the map.
    """
    return (1 - F.cosine_similarity(student @ linear.T, guide, dim=1)).sum()


def score_terms(
    terms: DistillationSettings,
    rows: Tensor,
    student: PairVectors,
    guide: PairVectors,
    scores: Blocks,
    own: Blocks,
    again: Tensor,
    linear: Tensor | None = None,
) -> Tensor:
    """The weighted terms of some rows of a batch, summed.

    Args:
        terms: Their weights.
        rows: (R,) which pair each row is.
        student: Unit vectors of the batch.
        guide: The guide's, of the same texts.
        scores: The student's similarities of the rows.
        own: Candidates that are no candidates: own texts, known positives, missing negatives.
        again: (N,) bool, negatives that stand in the batch before. They are no candidates of the others, but each pair
            learns the distance of its own.
        linear: (E, D) the map of the regression.
    """
    value = scores.ap.new_zeros(())
    if terms.kl_weight or terms.margin_mse_weight:
        with torch.no_grad():
            of_guide = similarities(guide, rows, contrast_anchors=False, contrast_positives=False)
        if terms.kl_weight:
            leaves = torch.cat([own.ap.scatter(1, rows[:, None], False), own.an | again], dim=1)
            ours, theirs = (torch.cat([blocks.ap, blocks.an], dim=1) for blocks in (scores, of_guide))
            kl = guide_kl(ours / terms.kl_student_temperature, theirs / terms.kl_guide_temperature, leaves)
            value = value + terms.kl_weight * kl
        if terms.margin_mse_weight and len(guide.negatives):
            # Negatives stand column by column: those of pair r at r, B + r, 2B + r ...
            places = rows[:, None] + torch.arange(0, len(guide.negatives), len(guide.anchors), device=rows.device)
            ours, theirs = (
                torch.cat([blocks.ap.gather(1, rows[:, None]), blocks.an.gather(1, places)], dim=1)
                for blocks in (scores, of_guide)
            )
            value = value + terms.margin_mse_weight * margin_mse(ours, theirs, ~own.an.gather(1, places))
    if linear is not None:
        map_ = linear[:, : student.anchors.shape[1]]  # MatryoshkaLoss asks for leading dimensions
        for ours, theirs in zip(student[:2], guide[:2], strict=True):
            value = value + terms.regression_weight * regression(ours[rows], theirs[rows], map_)
    return value
