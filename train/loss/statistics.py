"""What becomes of the candidate cells: counted while training, and told to the trainer's loggers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..distributed import all_reduce_sum, is_main_process

# Numbers of rows are summed as integers, in this unit: exact in any order, on any device, over any number of steps.
UNITS = 2**16


class MaskCounts(NamedTuple):
    """Sums over the rows of batches.

    Attributes:
        removed: Candidates that the judge took out.
        candidates: Candidates that it was asked of: neither targets, nor taken out by another rule.
        rows: Rows.
        weight: How much the candidates count in the softmax together, in ``UNITS``; one that stays whole counts 1.
        threshold: The (first) judge's thresholds, in ``UNITS``.
    """

    removed: int = 0
    candidates: int = 0
    rows: int = 0
    weight: int = 0
    threshold: int = 0

    def since(self, before: MaskCounts) -> MaskCounts:
        """What has been counted since then."""
        return MaskCounts(*(now - then for now, then in zip(self, before, strict=True)))

    def means(self) -> dict[str, float]:
        """Share of removed cells, effective number of negatives and mean threshold of a row; none of no candidates."""
        if not self.candidates:
            return {}
        return {
            "removed_share": self.removed / self.candidates,
            "effective_negatives": self.weight / UNITS / self.rows,
            "mean_threshold": self.threshold / UNITS / self.rows,
        }


class MaskStatistics:
    """Adds up, over batches, what became of the candidate cells; see ``MaskCounts``."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._told = MaskCounts()

    def count(self, judged: Tensor, weights: Tensor, own: Tensor, thresholds: Tensor, rows: Tensor) -> None:
        """Add rows of a batch.

        Args:
            judged: (R, C) bool: cells above the judge's threshold.
            weights: (R, C) log of how much each cell counts.
            own: (R, C) bool: cells that other rules take out.
            thresholds: (R,) on the scale of the guide's scores.
            rows: (R,) column of each row's target.
        """
        candidates = ~own
        candidates[torch.arange(len(rows), device=rows.device), rows] = False
        counts = [(judged & candidates).sum(), candidates.sum(), rows.new_tensor(len(rows))]
        of_rows = [(weights.exp() * candidates).sum(1), thresholds]
        added = torch.stack([*counts, *((each * UNITS).round().long().sum() for each in of_rows)])
        self._sums = added if self._sums is None else self._sums.to(added.device) + added

    def start_from(self, counts: MaskCounts) -> None:
        """Go on counting from an earlier run's counts; the first process holds them for all."""
        self._sums = torch.tensor(counts if is_main_process() else MaskCounts(), dtype=torch.float64)
        self._told = counts

    def counts(self) -> MaskCounts:
        """The counts so far, of all processes; all of them have to ask."""
        return MaskCounts(*all_reduce_sum(MaskCounts() if self._sums is None else self._sums.tolist()))

    def news(self) -> dict[str, float]:
        """The means since the last call, rounded; all processes have to ask."""
        counts = self.counts()
        means = counts.since(self._told).means()
        self._told = counts
        return {name: round(value, 5) for name, value in means.items()}
