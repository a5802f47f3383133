"""Arrays that grow with the index and would not fit into memory."""

from __future__ import annotations

import tempfile

import numpy as np


def scratch(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array in a temporary file that nobody else sees."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
