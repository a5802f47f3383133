"""Loss terms that learn from the guide's scores and vectors themselves, and the map that one of them trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from ...shared.candidates import Blocks, PairVectors, similarities
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ...shared.sampling import evenly_spread
from ..distributed import average_gradient
from ..settings import DistillationSettings

SAMPLED_PAIRS = 1_024
RIDGE = 0.3  # of the mean of the eigenvalues


def guide_kl(student: Tensor, guide: Tensor, masked: Tensor) -> Tensor:
    """Compute the KL divergence of the student's distribution over candidates from the guide's, summed over rows.

    ``sum_c P(c) (log P(c) - log Q(c))``, P the softmax of the guide's scores and Q of the student's (Hinton et al.
    2015, arXiv 1503.02531, without the factor of squared temperature).

    Args:
        student: (R, C) similarities over the student's temperature.
        guide: (R, C) guide scores over the guide's temperature.
        masked: (R, C) bool; each row has a candidate that is not.
    """
    log_q, log_p = (F.log_softmax(scores.masked_fill(masked, -torch.inf), dim=1) for scores in (student, guide))
    difference = torch.where(masked, 0.0, log_p - log_q.masked_fill(masked, 0.0))
    return (log_p.exp() * difference.masked_fill(masked, 0.0)).sum()


def margin_mse(student: Tensor, guide: Tensor, present: Tensor) -> Tensor:
    """Compute MarginMSE (Hofstätter et al. 2020, arXiv 2010.02666, eq. 3), the mean over negatives summed over rows.

    Args:
        student: (R, 1 + K) similarities of anchor and positive, then of anchor and each of its own negatives.
        guide: (R, 1 + K) the same of the guide.
        present: (R, K) bool, which negatives there are.
    """
    student_margins, guide_margins = (scores[:, :1] - scores[:, 1:] for scores in (student, guide))
    squared = torch.where(present, (student_margins - guide_margins) ** 2, 0.0)
    return (squared.sum(1) / present.sum(1).clamp(min=1)).sum()


def regression(student: Tensor, guide: Tensor, linear: Tensor) -> Tensor:
    """Compute one minus the cosine between mapped student vectors and guide vectors, summed over rows.

    Up to a factor of two the squared distance of unit vectors, as in LEAF (arXiv 2509.12539): (R, D), (R, E), map
    (E, D).
    """
    return (1 - F.cosine_similarity(student @ linear.T, guide, dim=1)).sum()


def distillation_terms(
    settings: DistillationSettings,
    rows: Tensor,
    student: PairVectors,
    guide: PairVectors,
    scores: Blocks,
    excluded: Blocks,
    repeated: Tensor,
    linear: Tensor | None = None,
) -> Tensor:
    """Sum the weighted terms of some rows of a batch.

    Args:
        settings: Their weights.
        rows: (R,) int64 number of each row's pair in the batch.
        student: The student's vectors.
        guide: The guide's vectors.
        scores: The student's similarities of the rows.
        excluded: Candidates that are none: own texts, known positives, missing negatives.
        repeated: (N,) bool, negatives that equal a text before them in the batch. They are no candidates of other
            pairs, but each pair learns the margin of its own.
        linear: (E, D) the map of the regression.
    """
    total, target = scores.ap.new_zeros(()), rows[:, None]
    if settings.kl_weight or settings.margin_mse_weight:
        with torch.no_grad():
            guide_scores = similarities(guide, rows, contrast_anchors=False, contrast_positives=False)
        if settings.kl_weight:
            masked = torch.cat([excluded.ap.scatter(1, target, False), excluded.an | repeated], dim=1)
            ours, theirs = (torch.cat([blocks.ap, blocks.an], dim=1) for blocks in (scores, guide_scores))
            kl = guide_kl(ours / settings.kl_student_temperature, theirs / settings.kl_guide_temperature, masked)
            total = total + settings.kl_weight * kl
        if settings.margin_mse_weight and len(guide.negatives):
            # Negatives are in the batch column by column: those of pair r at r, B + r, 2B + r ...
            own = target + torch.arange(0, len(guide.negatives), len(guide.anchors), device=rows.device)
            ours, theirs = (
                torch.cat([blocks.ap.gather(1, target), blocks.an.gather(1, own)], dim=1)
                for blocks in (scores, guide_scores)
            )
            total = total + settings.margin_mse_weight * margin_mse(ours, theirs, ~excluded.an.gather(1, own))
    if linear is not None:
        leading = linear[:, : student.anchors.shape[1]]  # MatryoshkaLoss asks for leading dimensions
        for ours, theirs in zip(student[:2], guide[:2], strict=True):
            total = total + settings.regression_weight * regression(ours[rows], theirs[rows], leading)
    return total


def fitted_map(model: SentenceTransformer, index: GuideIndex) -> nn.Linear:
    """Fit the map of the regression that takes the untrained student's vectors closest to the guide's.

    A random map would pull the student to a random rotation of the guide's vectors, because it learns at the student's
    own small rate. Up to 1,024 of the index's pairs, evenly spread, are embedded with the student's own prompts.
    """
    ids, texts, training = index.pairs(evenly_spread(len(index), SAMPLED_PAIRS), 0), Texts(index), model.training
    options: dict[str, Any] = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False}
    anchors = model.encode_query(texts.take(ids.anchors).to_pylist(), **options)
    positives = model.encode_document(texts.take(ids.positives).to_pylist(), **options)
    model.train(training)
    guide = torch.from_numpy(index.vectors(np.concatenate([ids.anchors, ids.positives])))
    with torch.no_grad():
        weight = ridge(torch.cat([anchors, positives]).float().cpu(), guide.float())
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=model.device)
    linear.weight.data.copy_(weight)
    average_gradient(linear.weight)
    return linear


def ridge(student: Tensor, guide: Tensor) -> Tensor:
    """Solve ridge regression: (n, D) vectors s, (n, E) vectors g -> the (E, D) map W of least squares.

    It minimizes ``sum |W s - g|^2 + r |W|^2`` over n texts.
    """
    moments = student.T @ student
    strength = RIDGE * float(moments.diagonal().mean())
    return torch.linalg.solve(moments + strength * torch.eye(len(moments)), student.T @ guide).T
