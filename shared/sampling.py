"""Some of the numbers 0 .. count - 1, at most ``most``, each once: (n,) int64, ascending."""

from __future__ import annotations

import numpy as np


def sample_of(count: int, most: int, seed: int) -> np.ndarray:
    """Sample numbers, which the seed determines."""
    return np.sort(np.random.default_rng(seed).choice(count, size=min(count, most), replace=False))


def evenly_spread(count: int, most: int) -> np.ndarray:
    """Choose numbers that are evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
