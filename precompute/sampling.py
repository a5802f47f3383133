"""Seeded samples, and how much of a corpus they stand for."""

from __future__ import annotations

import numpy as np

# Above this many texts, scales are estimated against a sample of this size ...
SCALE_SAMPLE = 65_536
# ... in which the K-th nearest text of the corpus is at least so near that its score tells as much (docs/JUDGE.md).
LEAST_SCALE_RANK, SCALE_K = 6, 100


def default_scale_k(texts: int) -> int:
    """Which nearest text a scale means: the 100th, and above a million texts one that the sample still resolves."""
    return max(SCALE_K, -(-LEAST_SCALE_RANK * texts // SCALE_SAMPLE))


def sample_of(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of the numbers 0 .. count - 1, each once: (n,) int64, ascending; the seed determines them."""
    return np.sort(np.random.default_rng(seed).choice(count, size=min(count, most), replace=False))
