"""What the judge has taken out, counted over the batches of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from .ranks import is_first, sum_of_all


class RemovedCells:
    """Counts, over batches, the candidate cells there were and those the judge took out."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def count(self, judged: Tensor, already: Tensor, rows: Tensor) -> None:
        """Add a batch: cells that the other rules take out, and targets, are no candidates."""
        candidates = ~already
        candidates[torch.arange(len(rows), device=rows.device), rows] = False
        counts = torch.stack([(judged & candidates).sum(), candidates.sum()])
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts

    def start_from(self, counts: tuple[int, int]) -> None:
        """Go on counting from an earlier run's counts; the first process holds them for all."""
        self._counts = torch.tensor(counts if is_first() else (0, 0))

    def counts(self) -> tuple[int, int]:
        """Removed cells and candidate cells so far, of all processes; all of them have to ask."""
        removed, candidates = sum_of_all([0, 0] if self._counts is None else self._counts.tolist())
        return removed, candidates
