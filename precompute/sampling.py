"""Seeded samples."""

from __future__ import annotations

import numpy as np


def sample_of(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of the numbers 0 .. count - 1, each once: (n,) int64, ascending; the seed determines them."""
    return np.sort(np.random.default_rng(seed).choice(count, size=min(count, most), replace=False))
