"""A guide as a detector of false negatives, counted over the batches that a student trains on.

A candidate is neither the target, nor a text against itself, nor a known positive of the anchor. It is a false negative
in truth when its text has the anchor's intent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gistcache.shared.candidates import BatchTexts, Blocks, PairVectors, same_text, similarities
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.types import MarginStrategy
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.loss.judges import thresholds
from torch import Tensor

MARGINS: tuple[tuple[float, MarginStrategy], ...] = (
    (0.0, "absolute"),
    (0.05, "absolute"),
    (0.1, "absolute"),
    (0.05, "relative"),
    (0.1, "relative"),
)
ROUNDING_BATCHES = 20


class Batch(NamedTuple):
    """Pair ids of a batch (B,), guide scores and which of them are of candidates, (B, B) each block."""

    labels: np.ndarray
    scores: Blocks
    candidates: Blocks


def batches(index: GuideIndex, batch_size: int, seed: int) -> Iterator[Batch]:
    """The first epoch's batches, as the trainer plans them."""
    labels = np.arange(len(index))
    for batch in plan_of_index(index, labels, PlanSettings(batch_size, seed)):
        yield _batch(index, labels[batch])


def _batch(index: GuideIndex, labels: np.ndarray) -> Batch:
    ids, none = index.pairs(labels, 0), torch.empty(0, dtype=torch.int64)
    anchors, positives = (torch.from_numpy(index.vectors(each).astype(np.float32)) for each in ids[:2])
    scores = all_scores(PairVectors(anchors, positives, anchors[:0]))
    arrays = map(torch.from_numpy, (*map(index.content_ids, ids[:2]), *index.known_positives(labels)))
    anchor_texts, positive_texts, known, known_rows = arrays
    texts = BatchTexts(anchor_texts, positive_texts, none, none.bool(), known, known_rows)
    # A row's own texts and its target are among these: a text against itself, and a known positive.
    return Batch(labels, scores, same_text(texts, torch.arange(len(labels)), scores).map(torch.logical_not))


def all_scores(vectors: PairVectors) -> Blocks:
    rows = torch.arange(len(vectors.anchors))
    return similarities(vectors, rows, contrast_anchors=True, contrast_positives=True)


def masked(scores: Blocks, margin: float, strategy: MarginStrategy) -> Blocks:
    """Mark what the paper's judge masks."""
    limit = thresholds(scores.ap.diagonal()[:, None], margin, strategy)
    return Blocks(*(block > limit for block in scores if block is not None))


def detector_figures(index: GuideIndex, intents: dict[str, str], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Counts by margin and block: candidates, those masked, those of the anchor's intent, and both.

    Args:
        index: The guide index; its pairs have no negatives.
        intents: Text -> intent, of every anchor.
        batch_size: Pairs a batch.
        seed: Of the batch plan.
    """
    anchors = index.to_dataset(0)["anchor"][:]
    numbers = torch.from_numpy(np.unique([intents[text] for text in anchors], return_inverse=True)[1])
    counts: dict[tuple[float, MarginStrategy, str], Counter[str]] = {}
    for batch in batches(index, batch_size, seed):
        intent = numbers[batch.labels]
        same = intent[:, None] == intent[None, :]  # a pair's two texts have one intent: the same for every block
        for margin, strategy in MARGINS:
            above = masked(batch.scores, margin, strategy)
            for block in ("ap", "aa", "pp"):
                counter = counts.setdefault((margin, strategy, block), Counter())
                counter.update(_counted(getattr(batch.candidates, block), getattr(above, block), same))
    return [{"margin": key[0], "strategy": key[1], "block": key[2], **counter} for key, counter in counts.items()]


def _counted(candidates: Tensor, above: Tensor, same: Tensor) -> dict[str, int]:
    above, same = above & candidates, same & candidates
    marks = {"candidates": candidates, "masked": above, "same": same, "masked_same": above & same}
    return {name: int(marked.sum()) for name, marked in marks.items()}


def changed_by_rounding(index: GuideIndex, guide: Any, batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Decisions that differ between the stored float16 vectors and the guide's own float32 ones, by margin."""
    counts = {margin: Counter(candidates=0, changed=0) for margin in MARGINS}
    pairs = index.to_dataset(0)
    for batch, _ in zip(batches(index, batch_size, seed), range(ROUNDING_BATCHES), strict=False):
        texts = pairs[batch.labels.tolist()]
        anchors, positives = _embed(guide, texts["anchor"]), _embed(guide, texts["positive"])
        exact = all_scores(PairVectors(anchors, positives, anchors[:0]))
        candidates = batch.candidates.joined()
        for margin in MARGINS:
            differ = masked(batch.scores, *margin).joined() != masked(exact, *margin).joined()
            counts[margin].update(candidates=int(candidates.sum()), changed=int((differ & candidates).sum()))
    return [{"margin": margin[0], "strategy": margin[1], **counter} for margin, counter in counts.items()]


def _embed(guide: Any, texts: list[str]) -> Tensor:
    return guide.encode(texts, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False).float().cpu()
