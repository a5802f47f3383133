"""How dense the corpus is around each text: its guide score with its K-th nearest other text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...shared.guide_index.layout import CONTENT
from ...shared.models.device import pick_device
from ...shared.progress import Advance, step
from ...shared.sampling import sample_of
from ..corpus import Corpus
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..settings import DENSITY_SAMPLE, IndexSettings
from .exact import exact_search
from .neighbors import GuideVectors


class DensityReference(NamedTuple):
    """The texts that local density is measured against: all unique texts, or a seeded sample of them.

    Attributes:
        ids: (m,) text ids, ascending, one for each text.
        rank: Which of them, by closeness, defines density: K scaled down with the sample.
    """

    ids: np.ndarray
    rank: int

    @classmethod
    def of(cls, content_ids: np.ndarray, k: int, seed: int, sample: int = DENSITY_SAMPLE) -> DensityReference:
        """Draw the reference of a corpus; ``content_ids`` (texts,) is the smallest id of each text."""
        unique = np.flatnonzero(content_ids == np.arange(len(content_ids)))
        ids = unique[sample_of(len(unique), sample, seed)]
        rank = round(min(k, len(unique) - 1) * len(ids) / len(unique))
        return cls(ids, max(1, min(rank, len(ids) - 1)))


def density(guide: GuideVectors, reference: DensityReference, ids: np.ndarray, device: str) -> np.ndarray:
    """The guide score of texts (n,) with their K-th nearest other text: (n,) float32; 0 where there is no other."""
    own, take = guide.contents.take(ids)[:, CONTENT], guide.vectors.take
    nearest = exact_search(take(ids), take, reference.ids, reference.rank, exclude=own, device=device)
    last = nearest.scores[:, -1]
    return np.where(np.isneginf(last), 0.0, last).astype(np.float32)


@dataclass(frozen=True)
class DensityJob:
    """Computes the local density of one shard of texts, whose ids ``ranges`` has; each worker resolves the device."""

    store: Store
    guide: GuideVectors
    reference: DensityReference
    ranges: list[tuple[int, int]]
    device: str

    def compute(self, number: int, advance: Advance) -> np.ndarray:
        """(rows,) float32."""
        ids = np.arange(*self.ranges[number])
        values = density(self.guide, self.reference, ids, pick_device(self.device))
        advance(len(ids))
        return values

    def commit(self, number: int, value: np.ndarray) -> ShardResult:
        """Write the shard."""
        return ShardResult(number, self.store.commit_shard("density", number, value))


def measure_density(shards: Shards, guide: GuideVectors, corpus: Corpus, settings: IndexSettings) -> dict[str, Any]:
    """Write the local density of every text; returns the numbers that define it, for the manifest."""
    assert settings.density_k, "IndexSettings.for_texts sets it"
    reference = DensityReference.of(corpus.texts["content_id"].to_numpy(), settings.density_k, settings.seed)
    ranges = shards.ranges("texts")
    job = DensityJob(shards.store, guide, reference, ranges, settings.device)
    with step("density", corpus.texts.height, "texts") as advance:
        shards.fill("density", job, range(len(ranges)), advance)
    return {"k": settings.density_k, "sample": len(reference.ids), "rank_in_sample": reference.rank}
