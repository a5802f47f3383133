"""A reranker as judge of the cells it has read: there its say replaces the guide's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...shared.candidates import Blocks
from ...shared.guide_index.ragged import runs
from ...shared.types import MarginStrategy
from .judges import thresholds
from .rescored import RerankedPairs, Rescored


class ScoredCells(NamedTuple):
    """Candidates of one block that a reranker has read, (M,) each.

    Attributes:
        pairs: int64 pair of the batch whose anchor it is.
        columns: int64 column of the candidate.
        scores: float32.
    """

    pairs: Tensor
    columns: Tensor
    scores: Tensor


class ScoredBatch(NamedTuple):
    """What a reranker knows of a batch.

    Attributes:
        positives: (B,) float32 its score of each pair.
        ap: Candidates of the block ``ap``.
        an: Candidates of the block ``an``.
    """

    positives: Tensor
    ap: ScoredCells
    an: ScoredCells


class Reranked(NamedTuple):
    """Scores of a reranker, and how far below a positive's a candidate is a false negative already."""

    rescored: Rescored
    margin: float = 0.0
    strategy: MarginStrategy = "absolute"

    def limits(self, positives: Tensor) -> Tensor:
        """(B,) its scores of pairs' positives -> the score above which a candidate is a false negative."""
        return thresholds(positives, self.margin, self.strategy)

    def overrule(self, excess: Blocks, batch: ScoredBatch, rows: Tensor) -> Blocks:
        """The judge's say of some rows, the reranker's in its place where that has read anchor and document.

        Args:
            excess: What the judge says.
            batch: What the reranker knows.
            rows: (R,) which pair each row is.
        """
        limits = self.limits(batch.positives)
        return excess._replace(
            ap=_overruled(excess.ap, batch.ap, rows, limits), an=_overruled(excess.an, batch.an, rows, limits)
        )


def _overruled(block: Tensor, cells: ScoredCells, rows: Tensor, limits: Tensor) -> Tensor:
    row_of_pair = torch.full_like(limits, -1, dtype=torch.int64)
    row_of_pair[rows] = torch.arange(len(rows), device=rows.device)
    row = row_of_pair[cells.pairs]
    here = row >= 0
    above = cells.scores - limits[cells.pairs]
    return block.index_put((row[here], cells.columns[here]), above[here])


def scored_cells(pairs: RerankedPairs, candidates: np.ndarray, device: torch.device) -> ScoredCells:
    """Where the candidates of a batch are documents that the reranker has read with a pair's anchor.

    Args:
        pairs: What it has read, of B pairs.
        candidates: (C,) text ids, a column each; -1 for none.
        device: Where the loss is computed.
    """
    order = np.argsort(candidates, kind="stable")
    asked = pairs.documents.ravel()
    first, last = (np.searchsorted(candidates[order], asked, side=side) for side in ("left", "right"))
    places, owner = runs(first, np.where(asked < 0, 0, last - first), len(order))
    found = (owner // pairs.documents.shape[1], order[places], pairs.scores.ravel()[owner])
    return ScoredCells(*(torch.as_tensor(each, device=device) for each in found))
