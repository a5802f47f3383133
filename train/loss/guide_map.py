"""The linear map from the student's vectors to the guide's, which the regression learns and training drops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.hf_dataset import pair_rows
from ...shared.sampling import evenly_spread
from ..distributed import average_gradient

SAMPLED_PAIRS = 1_024
RIDGE = 0.3  # of the mean of the eigenvalues


def fitted_map(model: SentenceTransformer, index: GuideIndex) -> nn.Linear:
    """The map as training begins: that which takes the untrained student's vectors closest to the guide's.

    A map drawn at random would pull the student to a random turn of the guide's vectors, for it learns at the student's
    own small rate.

    Args:
        model: The student; up to 1,024 of the index's pairs, evenly spread, are embedded, with its own prompts.
        index: An open index.
    """
    labels = evenly_spread(len(index), SAMPLED_PAIRS)
    rows, ids, training = pair_rows(index, labels, 0), index.pairs(labels, 0), model.training
    how: dict[str, Any] = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False}
    sides = model.encode_query(rows["anchor"][:], **how), model.encode_document(rows["positive"][:], **how)
    model.train(training)
    vectors = torch.from_numpy(index.vectors(np.concatenate([ids.anchors, ids.positives])))
    with torch.no_grad():
        weight = ridge(torch.cat(sides).float().cpu(), vectors.float())
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=model.device)
    linear.weight.data.copy_(weight)
    average_gradient(linear.weight)
    return linear


def ridge(student: Tensor, guide: Tensor) -> Tensor:
    """Ridge regression: the (E, D) map W with the least ``sum |W s - g|^2 + r |W|^2`` over n texts.

    Args:
        student: (n, D) unit vectors s.
        guide: (n, E) unit vectors g.
    """
    moments = student.T @ student
    strength = RIDGE * float(moments.diagonal().mean())
    return torch.linalg.solve(moments + strength * torch.eye(len(moments)), student.T @ guide).T
