"""What the index knows about a batch: which texts its pairs hold, and the guide's vectors of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..shared.index import GuideIndex, PairIds
from .judges import GuideView
from .mask import BatchTexts, PairVectors


@dataclass(frozen=True)
class BatchGuide:
    """What the index knows about a batch of B pairs with K negatives each.

    Attributes:
        texts: Which text is which; negatives column by column, as the student's are.
        view: Guide vectors and scales, float32; a missing negative has another text's, its cells leave anyway.
    """

    texts: BatchTexts
    view: GuideView

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
        return cls(_texts(index, labels, ids, device), _view(index, ids, device))


def _texts(index: GuideIndex, labels: np.ndarray, ids: PairIds, device: torch.device) -> BatchTexts:
    roles = (ids.anchors, ids.positives, ids.negatives.T.ravel())
    arrays = (*map(index.content_ids, roles), *index.known_positives(labels))
    return BatchTexts(*(torch.as_tensor(array, device=device) for array in arrays))


def _view(index: GuideIndex, ids: PairIds, device: torch.device) -> GuideView:
    roles = (ids.anchors, ids.positives, np.maximum(ids.negatives.T.ravel(), 0))

    def taken(read: Callable[[np.ndarray], np.ndarray]) -> PairVectors:
        return PairVectors(*(torch.as_tensor(read(text_ids), device=device).float() for text_ids in roles))

    return GuideView(taken(index.vectors), taken(index.scales))
