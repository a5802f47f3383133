"""False negatives in random batches of the sampled pairs, by the guide's cached vectors.

Candidates are those of the loss (``shared/candidates.py``) without negatives of the pairs' own, the judge is the
paper's at margin 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...shared.candidates import BatchTexts, PairVectors, same_text, similarities
from ...shared.guide_index.guide_index import GuideIndex
from .sample import SEED, ScoredPairs

LARGEST_BATCH = 1_024
BLOCKS = 3  # anchors against positives, anchors against anchors, positives against positives


class FalseNegative(NamedTuple):
    """Two pairs, by position in the sample: the other's positive is a right answer to this pair's anchor."""

    pair: int
    other: int
    score: float


@dataclass(frozen=True)
class RandomBatches:
    """False negatives in seeded random batches of the sample.

    Attributes:
        batch_size: Pairs a batch.
        share: Of the candidates other than the pairs' own texts, the share that the judge masks.
        clearest: Each anchor's false negative with the highest guide score, best first.
    """

    batch_size: int
    share: float
    clearest: list[FalseNegative]

    @classmethod
    def deal(cls, index: GuideIndex, sample: ScoredPairs, most: int) -> RandomBatches:
        """Deal the sample into batches of up to LARGEST_BATCH pairs and judge them; names ``most`` false negatives."""
        size = min(LARGEST_BATCH, len(sample))
        count = len(sample) // size
        order = np.random.default_rng(SEED).permutation(len(sample))
        masked, clearest = 0, list[FalseNegative]()
        for batch in order[: count * size].reshape(count, size):
            blocks = _excess(index, sample, batch)
            masked += sum(int((block > 0).sum()) for block in blocks)
            clearest += _clearest(batch, blocks[0], sample.scores)
        candidates = count * BLOCKS * size * (size - 1)
        clearest.sort(key=lambda each: -each.score)
        return cls(size, masked / max(1, candidates), clearest[:most])

    def expected(self, batch_size: int) -> float:
        """False negatives that a random batch of another size holds on average, of all its pairs together."""
        return self.share * BLOCKS * batch_size * (batch_size - 1)


def _excess(index: GuideIndex, sample: ScoredPairs, batch: np.ndarray) -> list[np.ndarray]:
    """How far each candidate's guide score is above that of the row's own positive: (B, B) of each block.

    It is -inf where the candidate is the row's anchor or one of its known positives: these need no guide.
    """
    ids, rows = (sample.anchors[batch], sample.positives[batch]), torch.arange(len(batch))
    anchors, positives = (torch.from_numpy(index.vectors(each).astype(np.float32)) for each in ids)
    contents = map(torch.from_numpy, (*map(index.content_ids, ids), *index.known_positives(sample.pair_ids[batch])))
    anchor_texts, positive_texts, known, known_rows = contents
    texts = BatchTexts(anchor_texts, positive_texts, rows[:0], rows[:0] > 0, known, known_rows)
    scores = similarities(PairVectors(anchors, positives, anchors[:0]), rows)
    own_scores = scores.ap.diagonal()[:, None]
    return [
        torch.where(own, -torch.inf, block - own_scores).numpy()
        for block, own in zip(scores, same_text(texts, rows, scores), strict=True)
    ]


def _clearest(batch: np.ndarray, excess: np.ndarray, scores: np.ndarray) -> list[FalseNegative]:
    best = excess.argmax(axis=1)
    above = excess[np.arange(len(batch)), best]
    rows = np.flatnonzero(above > 0)
    return [
        FalseNegative(int(batch[row]), int(batch[best[row]]), float(scores[batch[row]] + above[row])) for row in rows
    ]
