"""What a collator adds to a batch, and what the index knows about it: its texts, and the guide's vectors of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...shared.candidates import BatchTexts, PairVectors
from ...shared.guide_index.guide_index import GuideIndex
from .judges import GuideView
from .reranker_judge import RerankedCandidates, RerankerJudge

# Key of a ``GuideBatch`` among the features of the anchor column; in a collated batch it has the prefix ``anchor_``.
GUIDE_BATCH = "guide_batch"


@dataclass(frozen=True)
class GuideBatch:
    """What a collator adds to a batch of B pairs for the loss, which looks up the rest by pair id.

    Attributes:
        hard_negatives: (B, H) int64 text ids of the hard negatives of this epoch, -1 for none; they are the last H
            columns of negatives.
    """

    hard_negatives: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GuideBatch:
        """Move the batch to a device, as a tensor is moved."""
        return GuideBatch(self.hard_negatives.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class IndexedBatch:
    """What the index knows about a batch of B pairs with K negatives each, negatives column by column.

    Attributes:
        texts: The texts by content id.
        guide: The guide's vectors and densities; a missing negative has those of another text, and is masked anyway.
        reranked: The candidates that a reranker has read; None without one.
    """

    texts: BatchTexts
    guide: GuideView
    reranked: RerankedCandidates | None


def look_up(
    index: GuideIndex,
    pair_ids: np.ndarray,
    hard_negatives: np.ndarray,
    own_negatives: int,
    device: torch.device,
    reranker: RerankerJudge | None = None,
) -> IndexedBatch:
    """Look a batch up in the index.

    Args:
        index: An open guide index.
        pair_ids: (B,) int64.
        hard_negatives: (B, H) int64, see ``GuideBatch``; H may be 0.
        own_negatives: Columns of the pairs' own negatives, which come before them.
        device: Where the loss is computed.
        reranker: Judges what it has read.

    Raises:
        IndexFaultError: A pair id is outside the index.
    """
    ids = index.pairs(pair_ids, own_negatives)
    negatives = np.concatenate([ids.negatives, hard_negatives], axis=1).T.ravel()
    roles = (ids.anchors, ids.positives, negatives)
    reranked = reranker.candidates(pair_ids, np.concatenate(roles[1:]), device) if reranker else None
    return IndexedBatch(_texts(index, pair_ids, roles, device), guide_view(index, roles, device), reranked)


def _texts(index: GuideIndex, pair_ids: np.ndarray, roles: Sequence[np.ndarray], device: torch.device) -> BatchTexts:
    anchors, positives, negatives = map(index.content_ids, roles)
    repeated = np.ones(len(negatives), dtype=bool)
    repeated[np.unique(negatives, return_index=True)[1]] = False
    repeated |= np.isin(negatives, positives)
    texts = (anchors, positives, negatives, repeated, *index.known_positives(pair_ids))
    return BatchTexts(*(torch.as_tensor(array, device=device) for array in texts))


def guide_view(index: GuideIndex, roles: Sequence[np.ndarray], device: torch.device | str) -> GuideView:
    """Read what judges need of anchors, positives and candidates: text ids of any shape, -1 for none.

    A missing text has the values of another, and is masked anyway.
    """

    def read(rows: Callable[[np.ndarray], np.ndarray]) -> PairVectors:
        values = [torch.as_tensor(rows(np.maximum(ids, 0).ravel()), device=device).float() for ids in roles]
        return PairVectors(*(each.unflatten(0, ids.shape) for each, ids in zip(values, roles, strict=True)))

    return GuideView(read(index.vectors), read(index.density))
