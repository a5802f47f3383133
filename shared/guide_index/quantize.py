"""How a guide vector is stored: as float16, or as int8 with the scale that makes its length one.

That scale follows from the row, so that nothing else is stored; docs/SMALLER.md has what that is worth.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from ..types import VectorDType

VECTOR_DTYPES: tuple[VectorDType, ...] = get_args(VectorDType)
LARGEST = 127


def quantize(vectors: np.ndarray, dtype: VectorDType) -> np.ndarray:
    """Unit vectors (n, dim), none of them zero, as they are stored: (n, dim) of ``dtype``.

    int8: each row's largest value becomes 127 or -127, the others are rounded to the nearest whole number.
    """
    if dtype == "float16":
        return vectors.astype(np.float16)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (LARGEST / largest)).astype(np.int8)


def dequantize(rows: np.ndarray) -> np.ndarray:
    """Stored rows (n, dim) -> vectors: float16 rows as they are, int8 rows divided by their length as float32.

    A row of zeros stays one.
    """
    if rows.dtype != np.int8:
        return rows
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.int64)  # exact, so the same on every machine
    return rows / np.sqrt(np.maximum(squares, 1), dtype=np.float64).astype(np.float32)[:, None]
