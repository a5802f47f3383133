"""False negatives that random batches of a sample hold, and texts that are nearly the same.

Computed from the cached vectors; the cells are those of the loss (``shared/candidates.py``), without mined negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...shared.candidates import BatchTexts, PairVectors, same_text, similarities
from ...shared.guide_index.guide_index import GuideIndex
from .sample import SEED, ScoredPairs

BATCH_SIZES = (16, 64, 256, 1024)
MARGINS = np.linspace(0, 0.3, 31)
BLOCKS = 3  # anchors against positives, against anchors, positives against positives
NEIGHBORS_COMPARED = 10
ANCHORS_AT_ONCE = 256


class FalseNegative(NamedTuple):
    """Two pairs of the sample, by position: the second's positive is no negative of the first's anchor."""

    pair: int
    other: int
    score: float


@dataclass(frozen=True)
class RandomBatches:
    """False negatives in seeded random batches of the sample.

    Attributes:
        per_anchor: By batch size: (margins,) mean cells of a row of the loss that lie above its threshold.
        clearest: Of the largest batches, each anchor's false negative with the highest guide score, best first.
    """

    per_anchor: dict[int, np.ndarray]
    clearest: list[FalseNegative]

    @classmethod
    def of(cls, index: GuideIndex, sample: ScoredPairs, most: int) -> RandomBatches:
        """Deal the sample into batches of each size; name at most ``most`` false negatives."""
        per_anchor: dict[int, np.ndarray] = {}
        clearest: list[FalseNegative] = []
        sizes = [size for size in BATCH_SIZES if size <= len(sample)] or [len(sample)]
        for size in sizes:
            counts, batches = np.zeros(len(MARGINS), dtype=np.int64), len(sample) // size
            order = np.random.default_rng([SEED, size]).permutation(len(sample))
            for batch in order[: batches * size].reshape(batches, size):
                blocks = _excess(index, sample, batch)
                counts += sum(_above(block) for block in blocks)
                if size == sizes[-1]:
                    clearest += _clearest(batch, blocks[0], sample.scores)
            per_anchor[size] = counts / (batches * size)
        return cls(per_anchor, sorted(clearest, key=lambda found: -found.score)[:most])


def _excess(index: GuideIndex, sample: ScoredPairs, batch: np.ndarray) -> list[np.ndarray]:
    """How far each candidate's guide score is above that of the row's own positive: (B, B) of each block.

    A cell whose text is the row's anchor or one of its known positives is -inf: it leaves whatever the guide says.
    """
    ids, rows = (sample.anchors[batch], sample.positives[batch]), torch.arange(len(batch))
    anchors, positives = (torch.from_numpy(index.vectors(each).astype(np.float32)) for each in ids)
    contents = map(torch.from_numpy, (*map(index.content_ids, ids), *index.known_positives(sample.pair_ids[batch])))
    anchor_texts, positive_texts, known, known_rows = contents
    texts = BatchTexts(anchor_texts, positive_texts, rows[:0], rows[:0] > 0, known, known_rows)
    vectors = PairVectors(anchors, positives, anchors[:0])
    scores = similarities(vectors, rows, contrast_anchors=True, contrast_positives=True)
    limits = scores.ap.diagonal()[:, None]
    return [
        torch.where(own, -torch.inf, block - limits).numpy()
        for block, own in zip(scores, same_text(texts, rows, scores), strict=True)
        if block is not None and own is not None
    ]


def _above(excess: np.ndarray) -> np.ndarray:
    """(margins,) how many cells are above the threshold at each absolute margin."""
    below = -excess[excess > -MARGINS[-1]]
    return np.searchsorted(np.sort(below), MARGINS, side="left")


def _clearest(batch: np.ndarray, excess: np.ndarray, scores: np.ndarray) -> list[FalseNegative]:
    best = excess.argmax(axis=1)
    found = excess[np.arange(len(batch)), best]
    rows = np.flatnonzero(found > 0)
    return [
        FalseNegative(int(batch[row]), int(batch[best[row]]), float(scores[batch[row]] + found[row])) for row in rows
    ]


class NearDuplicate(NamedTuple):
    """Two different texts, by text id, and their guide score."""

    one: int
    other: int
    score: float


def near_duplicates(index: GuideIndex, sample: ScoredPairs, most: int) -> list[NearDuplicate]:
    """The closest two texts among each sampled anchor and its closest stored neighbours, best first.

    Documents that are nearly the same stand side by side in the neighbours of an anchor: comparing these few finds them
    anywhere in the corpus, without a search.
    """
    _, first = np.unique(sample.anchors, return_index=True)
    groups = np.concatenate([sample.anchors[:, None], sample.neighbors[:, :NEIGHBORS_COMPARED]], axis=1)[first]
    found = np.empty((0, 3))
    for start in range(0, len(groups), ANCHORS_AT_ONCE):
        found = np.concatenate([found, _compared(index, groups[start : start + ANCHORS_AT_ONCE])])
        _, kept = np.unique(np.sort(index.content_ids(found[:, :2].astype(np.int64))), axis=0, return_index=True)
        found = found[np.sort(kept)]
        found = found[np.argsort(-found[:, 2], kind="stable")[:most]]
    return [NearDuplicate(int(one), int(other), float(score)) for one, other, score in found]


def _compared(index: GuideIndex, groups: np.ndarray) -> np.ndarray:
    """Every two different texts of each group (n, G) with their guide score: (m, 3)."""
    contents = index.content_ids(groups)
    vectors = index.vectors(np.maximum(groups, 0).ravel()).astype(np.float32).reshape(*groups.shape, -1)
    scores = vectors @ vectors.transpose(0, 2, 1)
    one, other = np.triu_indices(groups.shape[1], k=1)
    held = (contents[:, one] != contents[:, other]) & (groups[:, one] >= 0) & (groups[:, other] >= 0)
    return np.stack([groups[:, one][held], groups[:, other][held], scores[:, one, other][held]], axis=1)
