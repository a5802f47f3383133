"""What rounding the guide's vectors changes: the share of the paper's mask decisions that differ on sampled pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ...shared.guide_index.quantize import dequantize
from ...shared.types import Role
from ..corpus import Corpus
from ..guides.base import Guide

SAMPLE_PAIRS = 512


class SampledPairs(NamedTuple):
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


def changed_decisions(sample: SampledPairs, exact: np.ndarray, stored: np.ndarray) -> dict[str, int]:
    """Judge the sampled pairs against each other with exact and with stored vectors.

    Args:
        sample: n pairs.
        exact: (n, 2, dim) float32 as the guide returns them.
        stored: (n, 2, dim) as an index stores them.

    Returns:
        The number of ``pairs``, of ``candidates`` that a batch of them can hold, and of ``changed`` decisions.
    """
    shared = (sample.contents[:, None, :, None] == sample.contents[None, :, None, :]).any(axis=(2, 3))
    can_meet = (sample.tasks[:, None] == sample.tasks) & ~shared  # one batch has one task, and no text twice
    vectors = dequantize(stored.reshape(-1, stored.shape[2])).reshape(stored.shape)
    before, after = (_above_positive(each)[:, can_meet] for each in (exact, vectors))
    return {"pairs": len(exact), "candidates": before.size, "changed": int((before != after).sum())}


def _above_positive(pairs: np.ndarray) -> np.ndarray:
    """The paper's judge, margin 0, over pairs of unit vectors (n, 2, dim): what scores above a row's own positive.

    Returns (3, n, n) bool: anchors against positives, against anchors, and positives against positives.
    """
    anchors, positives = pairs.astype(np.float32).swapaxes(0, 1)
    scores = np.stack([anchors @ positives.T, anchors @ anchors.T, positives @ positives.T])
    return scores > np.diagonal(scores[0])[:, None]


def exact_vectors(
    guide: Guide, corpus: Corpus, text_ids: np.ndarray, computed: Iterable[Mapping[str, Any]]
) -> np.ndarray:
    """The vectors of text ids (m,), ascending, before rounding: (m, dim) float32.

    ``computed`` is what the encoded shards report, see ``EncodeJob``; the guide embeds the texts whose shards an
    earlier run has committed.
    """
    vectors, missing = np.empty((len(text_ids), guide.dim), dtype=np.float32), np.ones(len(text_ids), dtype=bool)
    for stats in computed:
        rows = np.searchsorted(text_ids, stats["sample_ids"])
        vectors[rows], missing[rows] = stats["sample_vectors"], False
    is_query = text_ids < corpus.queries
    roles: dict[Role, np.ndarray] = {"query": missing & is_query, "document": missing & ~is_query}
    for role, rows in roles.items():
        if rows.any():
            vectors[rows] = guide.encode(corpus.texts["text"][text_ids[rows]].to_list(), role)
    return vectors
