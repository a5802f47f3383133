"""What the indexes know about a batch: which texts its pairs hold, and each guide's vectors of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...shared.candidates import BatchTexts, PairVectors
from ...shared.guide_index.guide_index import GuideIndex, PairIds
from .judges import GuideView
from .panel import matched_ids
from .reranker_judge import ScoredBatch, scored_cells
from .rescored import Rescored

# Key of a ``GuideBatch`` among the features of the anchor column; in a collated batch it has the prefix ``anchor_``.
GUIDE_BATCH = "guide_batch"


@dataclass(frozen=True)
class GuideBatch:
    """What a collator adds to a batch of B pairs for the loss, which looks up the rest by pair id.

    Attributes:
        hard_negatives: (B, H) int64 text ids of the hard negatives of this epoch, -1 for none; they are the last H
            columns of negatives.
    """

    hard_negatives: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GuideBatch:
        """Move the batch to a device, as a tensor is moved."""
        return GuideBatch(self.hard_negatives.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class BatchGuide:
    """What the indexes know about a batch of B pairs with K negatives each.

    Attributes:
        texts: Which text is which; negatives column by column, as the student's are.
        views: Of each guide its vectors and density, float32; a missing negative has another text's, its cells leave
            anyway.
        scored: What a reranker has read of them; None without one.
    """

    texts: BatchTexts
    views: tuple[GuideView, ...]
    scored: ScoredBatch | None = None


class Guides:
    """The indexes of a run. The first names texts and pairs; the others hold the same texts under other ids.

    Args:
        indexes: Open indexes.
        rescored: Scores of a reranker, made of the first.

    Raises:
        SettingsError: A later index lacks texts of the first.
    """

    def __init__(self, indexes: Sequence[GuideIndex], rescored: Rescored | None = None) -> None:
        self.indexes, self._rescored = list(indexes), rescored
        self._maps = [None, *(matched_ids(indexes[0], other) for other in indexes[1:])]

    def look_up(self, labels: np.ndarray, negatives: int, device: torch.device) -> BatchGuide:
        """Look a batch up.

        Args:
            labels: (B,) pair ids; or (B, 1 + H, 1): pair ids, and text ids of hard negatives, -1 for none.
            negatives: K: the H hard negatives, and before them the pairs' own.
            device: Where the loss is computed.

        Raises:
            IndexFaultError: A label is no pair id of the index.
        """
        rows = labels.reshape(len(labels), -1)
        pairs, hard = rows[:, 0], rows[:, 1:]
        ids = self.indexes[0].pairs(pairs, negatives - hard.shape[1])
        ids = ids._replace(negatives=np.concatenate([ids.negatives, hard], axis=1))
        views = (_view(index, ids, held, device) for index, held in zip(self.indexes, self._maps, strict=True))
        scored = _scored(self._rescored, pairs, ids, device) if self._rescored else None
        return BatchGuide(_texts(self.indexes[0], pairs, ids, device), tuple(views), scored)


def _scored(rescored: Rescored, pairs: np.ndarray, ids: PairIds, device: torch.device) -> ScoredBatch:
    found = rescored.take(pairs)
    blocks = (scored_cells(found, documents, device) for documents in (ids.positives, ids.negatives.T.ravel()))
    return ScoredBatch(torch.as_tensor(found.positives, device=device), *blocks)


def _texts(index: GuideIndex, pairs: np.ndarray, ids: PairIds, device: torch.device) -> BatchTexts:
    anchors, positives, negatives = (
        index.content_ids(role) for role in (ids.anchors, ids.positives, ids.negatives.T.ravel())
    )
    arrays = (anchors, positives, negatives, _again(negatives, positives), *index.known_positives(pairs))
    return BatchTexts(*(torch.as_tensor(array, device=device) for array in arrays))


def _again(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    again = np.ones(len(negatives), dtype=bool)
    again[np.unique(negatives, return_index=True)[1]] = False
    return again | np.isin(negatives, positives)


def _view(index: GuideIndex, ids: PairIds, held: np.ndarray | None, device: torch.device) -> GuideView:
    roles = (ids.anchors, ids.positives, np.maximum(ids.negatives.T.ravel(), 0))
    if held is not None:
        roles = tuple(held[role] for role in roles)

    def taken(read: Callable[[np.ndarray], np.ndarray]) -> PairVectors:
        return PairVectors(*(torch.as_tensor(read(text_ids), device=device).float() for text_ids in roles))

    return GuideView(taken(index.vectors), taken(index.density))
