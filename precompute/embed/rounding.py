"""What rounding the guide's vectors changes: the share of the paper's mask decisions that differ on sampled pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ...shared.guide_index.quantize import dequantize
from ...shared.types import Role
from ..corpus import Corpus
from ..guides.base import Guide

SAMPLE_PAIRS = 512


@dataclass(frozen=True)
class SampledPairs:
    """The first pairs of the anchors with the least hashes, so that the sample hardly changes as a corpus grows.

    Attributes:
        text_ids: (n, 2) int64 of anchors and positives; one id for equal texts, where they have one vector.
        contents: (n, 2) int64, the smallest id with the same text.
        tasks: (n,) int64; -1 where a pair has none.
    """

    text_ids: np.ndarray
    contents: np.ndarray
    tasks: np.ndarray

    @classmethod
    def draw(cls, corpus: Corpus, *, roles_alike: bool) -> SampledPairs:
        """Draw from a corpus; ``roles_alike`` says whether the guide gives a text one vector whatever its role."""
        anchors = corpus.texts[: corpus.queries].bottom_k(SAMPLE_PAIRS, by="text_hash")["text_id"].sort()
        pairs = corpus.pairs[corpus.pairs["anchor_id"].search_sorted(anchors, "left")]
        text_ids = pairs.select("anchor_id", "positive_id").to_numpy()
        contents = corpus.texts["content_id"].to_numpy()[text_ids]
        tasks = pairs["task"].cast(pl.Categorical).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        return cls(contents if roles_alike else text_ids, contents, tasks)

    def can_meet(self) -> np.ndarray:
        """(n, n) bool: pairs of one task without a text in common, which one batch may hold."""
        shared = (self.contents[:, None, :, None] == self.contents[None, :, None, :]).any(axis=(2, 3))
        return (self.tasks[:, None] == self.tasks) & ~shared


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


def changed_decisions(sample: SampledPairs, exact: np.ndarray, stored: np.ndarray) -> dict[str, int]:
    """Judge the sampled pairs against each other with exact and with stored vectors.

    Args:
        sample: n pairs.
        exact: (n, 2, dim) float32 as the guide returns them.
        stored: (n, 2, dim) as an index stores them.

    Returns:
        The number of ``pairs``, of ``candidates`` that a batch of them can hold, and of ``changed`` decisions.
    """
    countable = sample.can_meet()
    vectors = dequantize(stored.reshape(-1, stored.shape[2])).reshape(stored.shape)
    before, after = (above_positive(side[:, 0], side[:, 1])[:, countable] for side in (exact, vectors))
    return {"pairs": len(exact), "candidates": before.size, "changed": int((before != after).sum())}


def exact_vectors(
    guide: Guide, corpus: Corpus, text_ids: np.ndarray, computed: Iterable[Mapping[str, Any]]
) -> np.ndarray:
    """The vectors of texts (m,), ascending, before rounding: (m, dim) float32.

    Args:
        guide: Embeds the texts that no shard of this run has computed, because an earlier run committed theirs.
        corpus: The texts.
        text_ids: Which.
        computed: What the encoded shards report, see ``EncodeJob``.
    """
    vectors, missing = np.empty((len(text_ids), guide.dim), dtype=np.float32), np.ones(len(text_ids), dtype=bool)
    for stats in computed:
        rows = np.searchsorted(text_ids, stats["sample_ids"])
        vectors[rows], missing[rows] = stats["sample_vectors"], False
    roles: dict[Role, np.ndarray] = {"query": text_ids < corpus.queries, "document": text_ids >= corpus.queries}
    for role, members in roles.items():
        rows = np.flatnonzero(missing & members)
        if rows.size:
            vectors[rows] = guide.encode(corpus.texts["text"][text_ids[rows]].to_list(), role)
    return vectors
