"""What the index knows about a batch: which texts its pairs hold, and the guide's vectors of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..shared.index import GuideIndex, PairIds
from .mask import BatchTexts, PairVectors


@dataclass(frozen=True)
class BatchGuide:
    """What the index knows about a batch of B pairs with K negatives each.

    Attributes:
        texts: Which text is which; negatives column by column, as the student's are.
        vectors: Guide vectors, float32; a missing negative has some other text's vector, its cells leave anyway.
    """

    texts: BatchTexts
    vectors: PairVectors

    @classmethod
    def of(cls, index: GuideIndex, labels: np.ndarray, negatives: int, device: torch.device) -> BatchGuide:
        """Look a batch up.

        Args:
            index: An open guide index.
            labels: (B,) pair ids.
            negatives: K.
            device: Where the loss is computed.

        Raises:
            IndexFaultError: A label is no pair id of the index.
        """
        ids = index.pairs(labels, negatives)
        return cls(_texts(index, labels, ids, device), _vectors(index, ids, device))


def _texts(index: GuideIndex, labels: np.ndarray, ids: PairIds, device: torch.device) -> BatchTexts:
    roles = (ids.anchors, ids.positives, ids.negatives.T.ravel())
    arrays = (*map(index.content_ids, roles), *index.known_positives(labels))
    return BatchTexts(*(torch.as_tensor(array, device=device) for array in arrays))


def _vectors(index: GuideIndex, ids: PairIds, device: torch.device) -> PairVectors:
    def take(text_ids: np.ndarray) -> Tensor:
        return torch.as_tensor(index.vectors(text_ids), device=device).float()

    return PairVectors(take(ids.anchors), take(ids.positives), take(np.maximum(ids.negatives.T.ravel(), 0)))
