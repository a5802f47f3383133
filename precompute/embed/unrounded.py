"""Pairs whose guide vectors are kept before they are rounded, so that `verify` can tell what rounding changes.

Their texts go through the guide first; what they gave is then taken for the parts of vectors, so that no text goes
through twice. The sample follows from the anchors' hashes: with more pairs most of it stays, and `--reuse` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from ...shared.guide_index.layout import UNROUNDED_PAIRS, unrounded_rows
from ...shared.guide_index.memory_map import MappedRows
from ...shared.progress import Advance
from ..corpus import Corpus
from ..guides.base import Guide
from ..output.store import Store
from ..run.jobs import ShardResult
from .reuse import Held, OldVectors, held_in


@dataclass(frozen=True)
class SampledPairs:
    """The first pairs of the anchors with the least hashes.

    Attributes:
        pair_ids: (n,) int64, ascending.
        keys: (2n,) int64 of the anchors, then of the positives; equal for texts that have one vector.
        texts: role, text and text_hash in the order of ``keys``.
    """

    pair_ids: np.ndarray
    keys: np.ndarray
    texts: pl.DataFrame

    @classmethod
    def of(cls, corpus: Corpus, *, roles_alike: bool) -> SampledPairs:
        """Draw it; ``roles_alike`` says whether the guide gives a text one vector whatever its role."""
        anchors = corpus.texts[: corpus.queries].bottom_k(UNROUNDED_PAIRS, by="text_hash")["text_id"].sort()
        pair_ids = corpus.pairs["anchor_id"].search_sorted(anchors, "left").to_numpy().astype(np.int64)
        texts = corpus.texts[np.concatenate([anchors.to_numpy(), corpus.pairs["positive_id"].to_numpy()[pair_ids]])]
        keys = texts["content_id" if roles_alike else "text_id"].to_numpy()
        return cls(pair_ids, keys, texts.select("role", "text", "text_hash"))


@dataclass(frozen=True)
class UnroundedJob:
    """The guide's vectors of the sample, as one part.

    Attributes:
        place: Where it goes.
        guide: The guide; a worker elsewhere loads its own.
        sample: The pairs.
        old: Vectors that need not be computed again.
    """

    with_guide: ClassVar[bool] = True

    place: Store
    guide: Guide
    sample: SampledPairs
    old: OldVectors | None

    def compute(self, number: int, advance: Advance) -> np.ndarray:
        """(n,) records, see ``schema.unrounded_rows``; each text goes through the guide once."""
        del number
        keys, first, back = np.unique(self.sample.keys, return_index=True, return_inverse=True)
        texts = self.sample.texts[first]
        vectors, held = np.empty((len(keys), self.guide.dim), dtype=np.float32), np.zeros(len(keys), dtype=bool)
        if self.old:
            held, vectors[held] = self.old.unrounded(texts)
        for role in ("query", "document"):
            rows = np.flatnonzero((texts["role"] == role).to_numpy() & ~held)
            if rows.size:
                vectors[rows] = self.guide.encode(texts["text"][rows].to_list(), role)
        records = np.empty(len(self.sample.pair_ids), dtype=unrounded_rows(self.guide.dim))
        records["pair"] = self.sample.pair_ids
        records["anchor"], records["positive"] = np.split(vectors[back], 2)
        advance(len(records))
        return records

    def commit(self, number: int, value: np.ndarray) -> ShardResult:
        """Write it."""
        return ShardResult(number, self.place.commit_shard("unrounded", number, value))


@dataclass(frozen=True)
class Unrounded:
    """The sample's vectors, by text.

    Attributes:
        keys: As ``SampledPairs.keys``.
        rows: The part that ``UnroundedJob`` has written.
    """

    keys: np.ndarray
    rows: MappedRows

    def take(self, keys: np.ndarray) -> Held:
        """Those of n texts that it has, float32."""
        return held_in(self.rows.take(np.arange(len(self.rows))), self.keys, keys)
