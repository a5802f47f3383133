"""How dense the corpus is around each text: its guide score with its K-th nearest other text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

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
from .exact import BLOCK_ROWS, exact_search
from .neighbors import GuideVectors


@dataclass(frozen=True)
class DensityReference:
    """The texts that local density is measured against: all unique texts, or a seeded sample of them.

    Attributes:
        ids: (m,) text ids, ascending, one for each text.
        k: The rank, among all texts of the corpus, of the neighbor that defines density.
        rank: The rank among ``ids`` that stands for it: ``k`` scaled down with the sample.
    """

    ids: np.ndarray
    k: int
    rank: int

    @classmethod
    def of(cls, content_ids: np.ndarray, k: int, seed: int, sample: int = DENSITY_SAMPLE) -> DensityReference:
        """Draw the reference of a corpus; ``content_ids`` (texts,) is the smallest id of each text."""
        unique = np.flatnonzero(content_ids == np.arange(len(content_ids)))
        ids = unique[sample_of(len(unique), sample, seed)]
        rank = round(min(k, len(unique) - 1) * len(ids) / len(unique))
        return cls(ids, k, max(1, min(rank, len(ids) - 1)))


@dataclass(frozen=True)
class DensityJob:
    """Computes the local density of one shard of texts.

    Attributes:
        store: Where shards are written.
        guide: The guide vectors.
        reference: What density is measured against.
        ranges: First and last-plus-one text id of each shard.
        device: As the settings have it; each worker resolves it.
    """

    with_guide: ClassVar[bool] = False

    store: Store
    guide: GuideVectors
    reference: DensityReference
    ranges: list[tuple[int, int]]
    device: str

    def compute(self, number: int, advance: Advance) -> np.ndarray:
        """(rows,) float32."""
        start, stop = self.ranges[number]
        values = density(self.guide, self.reference, start, stop, pick_device(self.device))
        advance(stop - start)
        return values

    def commit(self, number: int, value: np.ndarray) -> ShardResult:
        """Write the shard."""
        return ShardResult(number, self.store.commit_shard("density", number, value))


def density(guide: GuideVectors, reference: DensityReference, start: int, stop: int, device: str) -> np.ndarray:
    """The guide score of each text ``start .. stop`` with its K-th nearest other text: (stop - start,) float32.

    0 in a corpus of one text, which has no other.
    """

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for begin in range(0, len(reference.ids), BLOCK_ROWS):
            ids = reference.ids[begin : begin + BLOCK_ROWS]
            yield ids, guide.vectors.take(ids)

    ids = np.arange(start, stop)
    own = guide.contents.take(ids)[:, CONTENT]
    nearest = exact_search(guide.vectors.take(ids), blocks, reference.rank, exclude=own, device=device)
    last = nearest.scores[:, -1]
    return np.where(np.isneginf(last), 0.0, last).astype(np.float32)


def measure_density(shards: Shards, guide: GuideVectors, corpus: Corpus, settings: IndexSettings) -> dict[str, Any]:
    """Write the local density of every text; returns the numbers that define it, for the manifest."""
    assert settings.density_k, "IndexSettings.for_texts sets it"
    reference = DensityReference.of(corpus.texts["content_id"].to_numpy(), settings.density_k, settings.seed)
    ranges = shards.ranges("texts")
    job = DensityJob(shards.store, guide, reference, ranges, settings.device)
    with step("density", corpus.texts.height, "texts") as advance:
        shards.fill("density", job, range(len(ranges)), advance)
    return {"k": reference.k, "sample": len(reference.ids), "rank_in_sample": reference.rank}
