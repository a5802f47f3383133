"""Counts of masked candidates, summed while training and reported to the trainer's loggers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..distributed import all_reduce_sum, is_main_process


class MaskCounts(NamedTuple):
    """Sums over the rows of batches.

    Attributes:
        masked: Candidates that the judge has masked.
        candidates: Candidates that were judged: neither targets, nor masked by another rule.
        rows: Rows.
        threshold: The thresholds of the judge, summed over rows.
    """

    masked: float = 0
    candidates: float = 0
    rows: float = 0
    threshold: float = 0.0

    def since(self, earlier: MaskCounts) -> MaskCounts:
        """Subtract earlier counts."""
        return MaskCounts(*(now - then for now, then in zip(self, earlier, strict=True)))

    def means(self) -> dict[str, float]:
        """Compute the share of masked candidates, the negatives left of a row and its threshold; empty without rows."""
        if not self.candidates:
            return {}
        return {
            "removed_share": self.masked / self.candidates,
            "effective_negatives": (self.candidates - self.masked) / self.rows,
            "mean_threshold": self.threshold / self.rows,
        }


class MaskStatistics:
    """Sums ``MaskCounts`` over batches, on the device of the loss, so that no step waits for a number."""

    def __init__(self) -> None:
        self._sums: tuple[float | Tensor, ...] = MaskCounts()
        self._reported = MaskCounts()

    def count(self, judged: Tensor, excluded: Tensor, thresholds: Tensor, rows: Tensor) -> None:
        """Add rows of a batch.

        Args:
            judged: (R, C) bool: candidates above the judge's threshold.
            excluded: (R, C) bool: candidates that other rules mask.
            thresholds: (R,) on the judge's own scale.
            rows: (R,) int64 column of each row's target.
        """
        candidates = (~excluded).scatter_(1, rows[:, None], False)
        precise = torch.float32 if thresholds.device.type == "mps" else torch.float64  # which MPS lacks
        added = (judged & candidates).sum(), candidates.sum(), len(rows), thresholds.sum(dtype=precise)
        self._sums = tuple(total + value for total, value in zip(self._sums, added, strict=True))

    def start_from(self, counts: MaskCounts) -> None:
        """Continue the counts of an earlier run, which were summed over its processes."""
        self._sums = counts if is_main_process() else MaskCounts()
        self._reported = counts

    def counts(self) -> MaskCounts:
        """Sum the counts so far over all processes; every process has to call this."""
        return MaskCounts(*all_reduce_sum([float(total) for total in self._sums]))

    def recent_means(self) -> dict[str, float]:
        """Compute the means since the last call, rounded; every process has to call this."""
        counts, reported = self.counts(), self._reported
        self._reported = counts
        return {name: round(value, 5) for name, value in counts.since(reported).means().items()}
