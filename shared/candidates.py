"""The cells of a batch, and which leave the loss because of the texts they hold. Pure functions of tensors.

The cells of a batch come in four blocks, one column a candidate: the positives of all pairs (``ap``), the anchors of
all pairs (``aa``), the positives once more, compared with the row's own positive (``pp``), and all negatives (``an``).
A row is a pair; ``rows`` says which pair of the batch each row is, so that a slice of rows can be computed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class PairVectors(NamedTuple):
    """Unit vectors of the texts of B pairs.

    Attributes:
        anchors: (B, D).
        positives: (B, D).
        negatives: (N, D), all negatives of the batch in any order; N may be 0.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor


class Blocks(NamedTuple):
    """One value for each cell of R rows; a block that takes no part is None.

    Attributes:
        ap: (R, B) row's anchor against every positive.
        aa: (R, B) row's anchor against every anchor, or None.
        pp: (R, B) row's positive against every positive, or None.
        an: (R, N) row's anchor against every negative.
    """

    ap: Tensor
    aa: Tensor | None
    pp: Tensor | None
    an: Tensor

    def each(self, act: Callable[[Tensor], Tensor]) -> Blocks:
        """What ``act`` makes of each block that takes part."""
        aa, pp = (None if block is None else act(block) for block in (self.aa, self.pp))
        return Blocks(act(self.ap), aa, pp, act(self.an))

    def or_(self, other: Blocks) -> Blocks:
        """Candidates that are marked here or there, of two blocks of the same form."""
        aa, pp = (
            None if one is None or two is None else one | two for one, two in ((self.aa, other.aa), (self.pp, other.pp))
        )
        return Blocks(self.ap | other.ap, aa, pp, self.an | other.an)

    def joined(self) -> Tensor:
        """(R, C): all cells of a row side by side, in the order ap, aa, pp, an."""
        return torch.cat([block for block in self if block is not None], dim=1)


def similarities(vectors: PairVectors, rows: Tensor, *, contrast_anchors: bool, contrast_positives: bool) -> Blocks:
    """Dot products of the rows' texts with every candidate, as matrix products.

    Args:
        vectors: Unit vectors of student or guide.
        rows: (R,) which pair each row is.
        contrast_anchors: Whether the aa block takes part.
        contrast_positives: Whether the pp block takes part.
    """
    anchors = vectors.anchors[rows]
    return Blocks(
        ap=anchors @ vectors.positives.T,
        aa=anchors @ vectors.anchors.T if contrast_anchors else None,
        pp=vectors.positives[rows] @ vectors.positives.T if contrast_positives else None,
        an=anchors @ vectors.negatives.T,
    )


@dataclass(frozen=True)
class BatchTexts:
    """Which texts stand in a batch, told by content id (equal texts have equal ids, whatever their role).

    Attributes:
        anchors: (B,) int64.
        positives: (B,) int64.
        negatives: (N,) int64; -1 where a pair has no such negative.
        again: (N,) bool, whether a negative is a positive of the batch too, or a negative before it: as a candidate a
            text counts once.
        known: (M,) int64 content ids of known positives, anywhere in the index, of the batch's anchors.
        known_rows: (M,) int64 which pair of the batch each known positive belongs to.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor
    again: Tensor
    known: Tensor
    known_rows: Tensor


def same_text(texts: BatchTexts, rows: Tensor, like: Blocks) -> Blocks:
    """Candidates whose text is the row's anchor, its positive, or another known positive of that anchor.

    Args:
        texts: The batch's texts.
        rows: (R,) which pair each row is.
        like: Blocks that say which take part.
    """
    positives = _is_own(texts, rows, texts.positives)
    return Blocks(
        ap=positives,
        aa=None if like.aa is None else _is_own(texts, rows, texts.anchors),
        pp=None if like.pp is None else positives,
        an=_is_own(texts, rows, texts.negatives),
    )


def _is_own(texts: BatchTexts, rows: Tensor, candidates: Tensor) -> Tensor:
    """(R, C) whether candidate c is a text that can be no negative of row r."""
    own = candidates == texts.anchors[rows, None]
    own |= candidates == texts.positives[rows, None]
    # Known positives are few: look each up among the sorted candidates instead of comparing all with all.
    ordered, order = candidates.sort()
    row_of_pair = torch.full_like(texts.anchors, -1)
    row_of_pair[rows] = torch.arange(len(rows), device=rows.device)
    row = row_of_pair[texts.known_rows]
    known, row = texts.known[row >= 0], row[row >= 0]
    first, last = torch.searchsorted(ordered, known), torch.searchsorted(ordered, known, right=True)
    counts = last - first
    owner = torch.arange(len(known), device=rows.device).repeat_interleave(counts)
    within = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[owner]
    own[row[owner], order[first[owner] + within]] = True
    return own


def self_cells(rows: Tensor, like: Blocks) -> Blocks:
    """The diagonals of aa and pp: a text against itself."""

    def diagonal(block: Tensor) -> Tensor:
        cells = torch.zeros_like(block, dtype=torch.bool)
        cells[torch.arange(len(rows), device=rows.device), rows] = True
        return cells

    return Blocks(
        ap=torch.zeros_like(like.ap, dtype=torch.bool),
        aa=None if like.aa is None else diagonal(like.aa),
        pp=None if like.pp is None else diagonal(like.pp),
        an=torch.zeros_like(like.an, dtype=torch.bool),
    )
