"""Storing vectors in fewer bytes, against a loop over numbers."""

from __future__ import annotations

import math

import numpy as np
from gistcache.shared.guide_index.quantize import dequantize, quantize


def units(count=50, dim=24, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_int8_rows_are_those_of_a_loop():
    vectors = units()
    rows = quantize(vectors, "int8")
    assert rows.dtype == np.int8
    back = dequantize(rows)
    assert back.dtype == np.float32
    for vector, row, again in zip(vectors.tolist(), rows.tolist(), back.tolist(), strict=True):
        largest = max(abs(value) for value in vector)
        assert row == [round(value / largest * 127) for value in vector]
        length = math.sqrt(sum(value * value for value in row))
        assert np.allclose(again, [value / length for value in row], rtol=1e-6, atol=0)


def test_length_is_one_and_what_was_rounded_is_rounded_to_itself():
    rows = quantize(units(seed=1), "int8")
    assert np.abs(np.linalg.norm(dequantize(rows).astype(np.float64), axis=1) - 1).max() < 1e-6
    assert np.array_equal(quantize(dequantize(rows), "int8"), rows)


def test_corners():
    basis = np.eye(3, dtype=np.float32)
    assert np.array_equal(dequantize(quantize(-basis, "int8")), -basis)
    zeros = np.zeros((2, 3), dtype=np.int8)  # of a stranger's file: no guide vector is zero
    assert np.array_equal(dequantize(zeros), zeros)
    assert dequantize(quantize(np.empty((0, 4), dtype=np.float32), "int8")).shape == (0, 4)
    halves = quantize(units(seed=2), "float16")
    assert halves.dtype == np.float16
    assert dequantize(halves) is halves
