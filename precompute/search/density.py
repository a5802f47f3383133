"""How dense the corpus is around each text: its guide score with its K-th nearest other text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...shared.guide_index.layout import CONTENT
from ...shared.models.device import pick_device
from ...shared.progress import Advance
from ...shared.sampling import sample_of
from ..output.store import Store
from ..run.jobs import ShardResult
from .exact import BLOCK_ROWS, exact_search
from .guide_vectors import GuideVectors

# Above this many texts, density are estimated against a sample of this size ...
DENSITY_SAMPLE = 65_536
# ... in which the K-th nearest text of the corpus is no nearer than this one: a nearer one tells less (docs/JUDGE.md).
DENSITY_K, LEAST_RANK = 100, 6


def default_density_k(texts: int) -> int:
    """Which nearest text a scale means: the 100th, and above a million texts one that the sample still resolves."""
    return max(DENSITY_K, -(-LEAST_RANK * texts // DENSITY_SAMPLE))


@dataclass(frozen=True)
class DensityReference:
    """The texts that density are measured against: all unique texts, or a seeded sample of them.

    Attributes:
        ids: (m,) text ids, ascending, one for each text.
        k: Which nearest text of the whole corpus is meant.
        rank: Which nearest of ``ids`` stands for it: ``k`` scaled down with the sample.
    """

    ids: np.ndarray
    k: int
    rank: int

    @classmethod
    def of(cls, content_ids: np.ndarray, k: int, seed: int, sample: int = DENSITY_SAMPLE) -> DensityReference:
        """Draw the reference of a corpus; ``content_ids`` (texts,) is the smallest id of each text."""
        unique = np.flatnonzero(content_ids == np.arange(len(content_ids)))
        ids = unique[sample_of(len(unique), sample, seed)]
        wanted = min(k, len(unique) - 1)
        return cls(ids, k, max(1, min(round(wanted * len(ids) / len(unique)), len(ids) - 1)))

    def told(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"k": self.k, "sample": len(self.ids), "rank_in_sample": self.rank}


@dataclass(frozen=True)
class DensityJob:
    """Scales of one part of texts after the other.

    Attributes:
        place: Where the parts go.
        space: The guide vectors.
        reference: What density are measured against.
        ranges: First and last-plus-one text id of each part.
        device: As the settings have it; resolved where the work is done.
    """

    with_guide: ClassVar[bool] = False

    place: Store
    space: GuideVectors
    reference: DensityReference
    ranges: list[tuple[int, int]]
    device: str

    def compute(self, number: int, advance: Advance) -> np.ndarray:
        """(rows,) float32 of a part."""
        start, stop = self.ranges[number]
        values = density(self.space, self.reference, start, stop, pick_device(self.device))
        advance(stop - start)
        return values

    def commit(self, number: int, value: np.ndarray) -> ShardResult:
        """Write it."""
        return ShardResult(number, self.place.commit_shard("density", number, value))


def density(space: GuideVectors, reference: DensityReference, start: int, stop: int, device: str) -> np.ndarray:
    """Each text's guide score with its K-th nearest other text: (stop - start,) float32.

    A corpus of one text has no other; its scale is then 0.
    """

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for begin in range(0, len(reference.ids), BLOCK_ROWS):
            ids = reference.ids[begin : begin + BLOCK_ROWS]
            yield ids, space.vectors.take(ids)

    ids = np.arange(start, stop)
    found = exact_search(
        space.vectors.take(ids),
        blocks,
        reference.rank,
        exclude=space.contents.take(ids)[:, CONTENT],
        device=device,
    )
    last = found.scores[:, -1]
    return np.where(np.isneginf(last), 0.0, last).astype(np.float32)
