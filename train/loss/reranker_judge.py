"""A reranker as judge of the candidates that it has read: there its judgement replaces the guide's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...shared.candidates import Blocks, row_of_pair
from ...shared.guide_index.ragged import runs
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.types import MarginStrategy
from .judges import thresholds


class RerankedCandidates(NamedTuple):
    """The candidates of a batch that the reranker has read, (M,) each.

    Attributes:
        pairs: int64 number of the pair in the batch whose anchor it is.
        columns: int64 number of the candidate among the batch's documents, positives first, then negatives.
        excess: float32 distance above the pair's threshold; above 0 it is a false negative.
    """

    pairs: Tensor
    columns: Tensor
    excess: Tensor


class RerankerJudge(NamedTuple):
    """Calls a document a false negative where the reranker scores it above the pair's positive, less the margin."""

    scores: RerankerScores
    margin: float = 0.0
    strategy: MarginStrategy = "absolute"

    def thresholds(self, pair_ids: np.ndarray) -> np.ndarray:
        """Compute the reranker's score above which a document is a false negative: pair ids (B,) -> (B,) float32."""
        return thresholds(torch.from_numpy(self.scores.positive_scores(pair_ids)), self.margin, self.strategy).numpy()

    def candidates(self, pair_ids: np.ndarray, documents: np.ndarray, device: torch.device) -> RerankedCandidates:
        """Find the candidates of a batch that the reranker has read.

        Args:
            pair_ids: (B,) pairs of the batch.
            documents: (C,) text ids of the batch's positives, then of its negatives; -1 for none.
            device: Where the loss is computed.
        """
        read = self.scores.documents(pair_ids)
        excess = self.scores.scores(pair_ids) - self.thresholds(pair_ids)[:, None]
        order = np.argsort(documents, kind="stable")
        first, last = (np.searchsorted(documents[order], read.ravel(), side=side) for side in ("left", "right"))
        places, owner = runs(first, np.where(read.ravel() < 0, 0, last - first), len(order))
        arrays = (owner // read.shape[1], order[places], excess.ravel()[owner])
        return RerankedCandidates(*(torch.as_tensor(array, device=device) for array in arrays))


def overrule(excess: Blocks, reranked: RerankedCandidates, rows: Tensor) -> Blocks:
    """Replace the guide's judgement of some rows (R,) by the reranker's where it has read anchor and document."""
    documents = torch.cat([excess.ap, excess.an], dim=1)
    row = row_of_pair(rows, excess.ap.shape[1])[reranked.pairs]
    present = row >= 0
    documents[row[present], reranked.columns[present]] = reranked.excess[present]
    ap, an = documents.split([excess.ap.shape[1], excess.an.shape[1]], dim=1)
    return excess._replace(ap=ap, an=an)
