"""Some of many: by a seed, or evenly spread."""

from __future__ import annotations

import numpy as np


def sample_of(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of the numbers 0 .. count - 1, each once: (n,) int64, ascending; the seed determines them."""
    return np.sort(np.random.default_rng(seed).choice(count, size=min(count, most), replace=False))


def evenly_spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of the numbers 0 .. count - 1, each once, evenly spread: (n,) int64, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
