"""The candidates of a batch, and which of them are one text. Pure functions of tensors.

A row of the loss is a pair, and its softmax has candidates of four blocks: its anchor with all positives of the batch
(``ap``), with all anchors (``aa``), with all negatives (``an``), and its positive with all positives (``pp``).
``rows``, (R,) int64, numbers the pairs whose rows are computed, so that a slice of the batch can be computed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class PairVectors(NamedTuple):
    """Unit vectors of the texts of B pairs: anchors and positives (B, D), all negatives of the batch (N, D)."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor


class Blocks(NamedTuple):
    """One value for each candidate of R rows: (R, B), or (R, N) of negatives; a block that takes no part is (R, 0)."""

    ap: Tensor
    aa: Tensor
    pp: Tensor
    an: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Blocks:
        """Apply a function to each block."""
        return Blocks(*map(function, self))

    def joined(self) -> Tensor:
        """Concatenate the blocks in their order: (R, C)."""
        return torch.cat(self, dim=1)


def similarities(
    vectors: PairVectors, rows: Tensor, *, contrast_anchors: bool = True, contrast_positives: bool = True
) -> Blocks:
    """Compute the dot products of some rows with all their candidates; blocks aa and pp may be left out."""
    anchors = vectors.anchors[rows]
    others = vectors.anchors if contrast_anchors else vectors.anchors[:0]
    positives = vectors.positives if contrast_positives else vectors.positives[:0]
    return Blocks(
        ap=anchors @ vectors.positives.T,
        aa=anchors @ others.T,
        pp=vectors.positives[rows] @ positives.T,
        an=anchors @ vectors.negatives.T,
    )


@dataclass(frozen=True)
class BatchTexts:
    """The texts of a batch by content id, int64: equal texts have equal ids, whatever their role.

    Attributes:
        anchors: (B,).
        positives: (B,).
        negatives: (N,); -1 where a pair has no such negative.
        repeated: (N,) bool, whether a negative is a positive of the batch too, or equals a negative before it: as a
            candidate a text counts once.
        known: (M,) known positives, anywhere in the index, of the batch's anchors.
        known_rows: (M,) number of the pair in the batch that each known positive belongs to.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor
    repeated: Tensor
    known: Tensor
    known_rows: Tensor

    def as_distinct(self) -> BatchTexts:
        """Give every text of the batch an id of its own, as public implementations of the loss treat them."""
        pairs, missing = len(self.anchors), self.negatives < 0
        ids = torch.arange(2 * pairs + len(missing), device=missing.device)
        negatives = ids[2 * pairs :].masked_fill(missing, -1)
        return BatchTexts(ids[:pairs], ids[pairs : 2 * pairs], negatives, missing, self.known[:0], self.known_rows[:0])


def same_text(texts: BatchTexts, rows: Tensor, like: Blocks) -> Blocks:
    """Mark the candidates, in blocks as of ``like``, whose text is the row's anchor or a known positive of it.

    Among them are the row's target, and a text compared with itself.
    """
    positives = _is_own(texts, rows, texts.positives)
    return Blocks(
        ap=positives,
        aa=_is_own(texts, rows, texts.anchors[: like.aa.shape[1]]),
        pp=positives[:, : like.pp.shape[1]],
        an=_is_own(texts, rows, texts.negatives),
    )


def _is_own(texts: BatchTexts, rows: Tensor, candidates: Tensor) -> Tensor:
    """(R, C) bool: whether a candidate's text cannot be a negative of the row."""
    own = candidates == texts.anchors[rows, None]
    own |= candidates == texts.positives[rows, None]
    # Known positives are few: look each up among the sorted candidates instead of comparing all with all.
    ordered, order = candidates.sort()
    row = row_of_pair(rows, len(texts.anchors))[texts.known_rows]
    known, row = texts.known[row >= 0], row[row >= 0]
    first, last = torch.searchsorted(ordered, known), torch.searchsorted(ordered, known, right=True)
    counts = last - first
    owner = torch.arange(len(known), device=rows.device).repeat_interleave(counts)
    within = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[owner]
    own[row[owner], order[first[owner] + within]] = True
    return own


def row_of_pair(rows: Tensor, pairs: int) -> Tensor:
    """Invert ``rows``: (pairs,) int64 row of each pair of the batch, -1 for pairs that have none."""
    row = torch.full((pairs,), -1, dtype=torch.int64, device=rows.device)
    row[rows] = torch.arange(len(rows), device=rows.device)
    return row
