"""How many of the guide's decisions change when its vectors are rounded, on the pairs that are kept unrounded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .guide_index import GuideIndex
from .quantize import VECTOR_DTYPES, dequantize, quantize


class ChangedDecisions(NamedTuple):
    """Shares of decisions that differ from those of float32 vectors.

    Attributes:
        pairs: How many pairs were judged against each other.
        cells: How many decisions that made.
        shares: By how vectors are rounded; the stored ones come first.
    """

    pairs: int
    cells: int
    shares: dict[str, float]

    def told(self) -> str:
        """In one line."""
        shares = ", ".join(f"{name} {100 * share:.4f} %" for name, share in self.shares.items())
        return f"mask decisions that differ from float32: {shares} ({self.cells:,} cells of {self.pairs:,} pairs)"


def changed_decisions(index: GuideIndex) -> ChangedDecisions:
    """Judge the sampled pairs by the paper's rule, with vectors as the guide gave them and rounded.

    Every cell counts that a batch of these pairs can hold: two pairs of one task that share no text.
    """
    records = index.unrounded()
    ids = index.pairs(records["pair"], 0)
    exact = records["anchor"], records["positive"]
    counted = _can_meet(index, records["pair"])
    truth = above_positive(*exact)[:, counted]
    vectors = {f"{index.vector_dtype} as stored": [index.vectors(each) for each in (ids.anchors, ids.positives)]}
    for dtype in VECTOR_DTYPES:
        if dtype != index.vector_dtype:
            vectors[f"{dtype} instead"] = [dequantize(quantize(side, dtype)) for side in exact]
    shares = {name: above_positive(*sides)[:, counted] != truth for name, sides in vectors.items()}
    return ChangedDecisions(
        len(records), truth.size, {name: float(each.sum()) / max(1, each.size) for name, each in shares.items()}
    )


def above_positive(anchors: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """The paper's judge, margin 0: which candidates score above a row's own positive.

    Args:
        anchors: (n, dim) unit vectors.
        positives: (n, dim) unit vectors.

    Returns:
        (3, n, n) bool: anchors against positives, against anchors, and positives against positives.
    """
    a, p = (np.asarray(side, dtype=np.float32) for side in (anchors, positives))
    scores = np.stack([a @ p.T, a @ a.T, p @ p.T])
    return scores > np.diagonal(scores[0])[:, None]


def _can_meet(index: GuideIndex, pair_ids: np.ndarray) -> np.ndarray:
    """(n, n) bool: pairs of one task without a text in common."""
    ids, tasks = index.pairs(pair_ids, 0), index.tasks(pair_ids)
    texts = index.content_ids(np.column_stack([ids.anchors, ids.positives]))
    shared = (texts[:, None, :, None] == texts[None, :, None, :]).any(axis=(2, 3))
    return (tasks[:, None] == tasks) & ~shared
