"""False negatives in random batches of the sampled pairs, by the guide's cached vectors.

Candidates are those of the loss (``shared/candidates.py``) without negatives of the pairs' own; the judge is the
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
        """Deal the sample into batches of up to LARGEST_BATCH pairs and judge them; keeps ``most`` false negatives."""
        size = min(LARGEST_BATCH, len(sample))
        count = len(sample) // size
        order = np.random.default_rng(SEED).permutation(len(sample))
        masked, clearest = 0, list[FalseNegative]()
        for batch in order[: count * size].reshape(count, size):
            excess = _excess(index, sample, batch)
            masked += int((excess > 0).sum())
            for row, best in enumerate(excess[:, :size].argmax(axis=1)):
                if excess[row, best] > 0:
                    score = float(sample.scores[batch[row]] + excess[row, best])
                    clearest.append(FalseNegative(int(batch[row]), int(batch[best]), score))
        clearest.sort(key=lambda each: -each.score)
        return cls(size, masked / max(1, count * BLOCKS * size * (size - 1)), clearest[:most])

    def expected(self, batch_size: int) -> float:
        """False negatives that a random batch of another size holds on average, of all its pairs together."""
        return self.share * BLOCKS * batch_size * (batch_size - 1)


def _excess(index: GuideIndex, sample: ScoredPairs, batch: np.ndarray) -> np.ndarray:
    """(B, 3 B): how far each candidate's guide score is above the row's own positive's; -inf for known positives."""
    ids, rows = (sample.anchors[batch], sample.positives[batch]), torch.arange(len(batch))
    anchors, positives = (torch.from_numpy(index.vectors(each).astype(np.float32)) for each in ids)
    contents = map(torch.from_numpy, (*map(index.content_ids, ids), *index.known_positives(sample.pair_ids[batch])))
    anchor_texts, positive_texts, known, known_rows = contents
    texts = BatchTexts(anchor_texts, positive_texts, rows[:0], rows[:0] > 0, known, known_rows)
    vectors = PairVectors(anchors, positives, anchors[:0])
    scores = similarities(vectors, rows, contrast_anchors=True, contrast_positives=True)
    own = same_text(texts, rows, scores).joined()
    return (scores.joined() - scores.ap.diagonal()[:, None]).masked_fill(own, -torch.inf).numpy()
