"""Tokenized texts as the models take them: the length of each row, and batches of rows cut to their own length.

Rows of similar length go through the model together, so that little of what is computed is padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Features = dict[str, Any]

# What one more forward pass costs besides its tokens, in tokens: launches, small matrices, Python. On an accelerator
# that was measured on a student 384 wide, in float32 and in half precision (docs/BENCHMARKS.md).
CPU_PASS_TOKENS = 48
ACCELERATOR_PASS_TOKENS, HALF_PASS_TOKENS, MEASURED_WIDTH = 10_700, 65_000, 384


def is_padded_text(features: Features) -> bool:
    """Whether features are rows of token ids with an attention mask, which can be cut and sorted by length."""
    ids, mask = features.get("input_ids"), features.get("attention_mask")
    return isinstance(ids, Tensor) and isinstance(mask, Tensor) and ids.ndim == 2 and mask.shape == ids.shape


def split_flat(features: Features, budget: int) -> list[Features]:
    """Cut flat features between texts, so that each piece has at most ``budget`` tokens; a single text may have more.

    Flat features are those of flash attention: all texts in one row, (1, T), with ``cu_seq_lens_*`` (texts + 1,) and
    ``max_length_*``.
    """
    starts, pieces, first = features["cu_seq_lens_q"].cpu().numpy(), [], 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + budget, side="right")) - 1)
        pieces.append(_texts_of_flat(features, first, last))
        first = last
    return pieces


def _texts_of_flat(features: Features, first: int, last: int) -> Features:
    """Texts ``first`` to ``last - 1``."""
    starts = features["cu_seq_lens_q"]
    tokens = slice(int(starts[first]), int(starts[last]))
    piece = dict(features)
    for name, value in features.items():
        if name.startswith("cu_seq_lens"):
            piece[name] = value[first : last + 1] - value[first]
        elif name.startswith("max_length"):
            piece[name] = int(starts[first : last + 1].diff().max())
        elif isinstance(value, Tensor) and value.shape == features["input_ids"].shape:
            piece[name] = value[:, tokens] - (first if name == "seq_idx" else 0)
    return piece


def row_lengths(features: Features) -> np.ndarray:
    """Tokens in each row: (rows,) int64."""
    return features["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)


def take_rows(features: Features, rows: np.ndarray, width: int) -> Features:
    """The given rows (r,), in that order, cut to ``width`` tokens; works for padding on the right and on the left."""
    mask = features["attention_mask"]
    index = torch.as_tensor(rows, device=mask.device)
    left_padded = mask.shape[1] > 0 and not bool(mask[:, 0].all()) and bool(mask[:, -1].all())
    columns = slice(mask.shape[1] - width, None) if left_padded else slice(width)
    return {
        name: value[index, columns] if isinstance(value, Tensor) and value.shape == mask.shape else value
        for name, value in features.items()
    }


def split_by_budget(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut rows of so many tokens, (rows,) int64, into batches of at most ``budget`` padded tokens, longest rows first.

    A single row may be over the budget. Returns row numbers, a batch each; together every row once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        count = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + count])
        start += count
    return batches


def pass_tokens(device: str, width: int | None = None, *, half: bool = False) -> int:
    """What one more forward pass costs besides its tokens, in tokens.

    A layer has the same launches at any width, and work for a token that grows with the square of the width (of the
    encoder's hidden states; None where it is not known).
    """
    if device == "cpu":
        return CPU_PASS_TOKENS
    measured = HALF_PASS_TOKENS if half else ACCELERATOR_PASS_TOKENS
    return round(measured * (MEASURED_WIDTH / (width or MEASURED_WIDTH)) ** 2)


def split_by_cost(lengths: np.ndarray, pass_cost: int) -> list[np.ndarray]:
    """Cut rows into length buckets so that padded tokens plus ``pass_cost`` a bucket is as small as can be.

    Exact: dynamic programming over the distinct lengths, (rows,) int64. Costs are in tokens. Returns row numbers, a
    bucket each, shortest bucket first; together every row once.
    """
    order = np.argsort(lengths, kind="stable")
    widths, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])  # rows up to and with each distinct length
    best, cut = np.zeros((2, len(ends)), dtype=np.int64)
    for end in range(1, len(ends)):
        costs = best[:end] + (ends[end] - ends[:end]) * widths[end - 1] + pass_cost
        cut[end] = np.argmin(costs)
        best[end] = costs[cut[end]]
    buckets, end = [], len(ends) - 1
    while end > 0:
        buckets.append(order[ends[cut[end]] : ends[end]])
        end = int(cut[end])
    return buckets[::-1]
