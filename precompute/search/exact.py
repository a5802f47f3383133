"""Exact search: the k closest rows to each query by guide score, block by block, on the device at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...shared.models.onednn import OneDNNLinear

BLOCK_ROWS = 16_384
# Every block of queries reads all rows anew, and an accelerator has to be handed them; there a block has 0.5 GB of
# scores.
CPU_QUERIES, ACCELERATOR_QUERIES = 1_024, 8_192

VectorBlocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class Found(NamedTuple):
    """The closest rows: (n, k) float32 scores, best first, and (n, k) int64 ids; -1 where there are fewer than k."""

    scores: np.ndarray
    ids: np.ndarray


def exact_search(
    queries: np.ndarray, blocks: VectorBlocks, k: int, *, exclude: np.ndarray | None = None, device: str = "cpu"
) -> Found:
    """Find the k rows with the highest dot product for each query.

    Args:
        queries: (n, dim) vectors, any float dtype; scores are computed in float32.
        blocks: Called for each block of queries; yields ``(ids, vectors)`` of the rows to search, ids ascending.
        k: How many to find.
        exclude: (n,) one id a query that must not be found (its own); -1 for none.
        device: Torch device.
    """
    parts = [
        _search_block(queries[part], blocks, k, None if exclude is None else exclude[part], device)
        for part in _query_blocks(len(queries), device)
    ]
    return Found(np.concatenate([part.scores for part in parts]), np.concatenate([part.ids for part in parts]))


def _search_block(queries: np.ndarray, blocks: VectorBlocks, k: int, exclude: np.ndarray | None, device: str) -> Found:
    anchors = torch.as_tensor(queries, device=device).float()
    best = torch.full((len(anchors), k), -torch.inf, device=device)
    best_ids = torch.full((len(anchors), k), -1, dtype=torch.int64, device=device)
    for ids, vectors in blocks():
        scores = _scores(anchors, vectors)
        if exclude is not None:
            _blank(scores, ids, exclude)
        top, columns = scores.topk(min(k, scores.shape[1]), dim=1)
        both = torch.cat([best, top], dim=1)
        both_ids = torch.cat([best_ids, torch.as_tensor(ids, device=device)[columns]], dim=1)
        best, order = both.topk(k, dim=1)
        best_ids = both_ids.gather(1, order)
    best_ids[best == -torch.inf] = -1
    return Found(best.cpu().numpy(), best_ids.cpu().numpy())


def count_above(
    queries: np.ndarray,
    thresholds: np.ndarray,
    blocks: VectorBlocks,
    *,
    own: np.ndarray,
    exclude: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """How many rows score strictly above each query's threshold.

    Args:
        queries: (n, dim) vectors.
        thresholds: (n,) float32.
        blocks: As for ``exact_search``.
        own: (n,) id whose score the threshold is; it is never counted, whatever rounding does.
        exclude: (n,) another id not to count; -1 for none.
        device: Torch device.

    Returns:
        (n,) int64.
    """
    counts = np.zeros(len(queries), dtype=np.int64)
    for part in _query_blocks(len(queries), device):
        anchors = torch.as_tensor(queries[part], device=device).float()
        limit = torch.as_tensor(thresholds[part], device=device)[:, None]
        for ids, vectors in blocks():
            scores = _scores(anchors, vectors)
            _blank(scores, ids, own[part])
            _blank(scores, ids, exclude[part])
            counts[part] += (scores > limit).sum(dim=1).cpu().numpy()
    return counts


def _query_blocks(count: int, device: str) -> list[slice]:
    rows = CPU_QUERIES if device == "cpu" else ACCELERATOR_QUERIES
    return [slice(start, start + rows) for start in range(0, count, rows)]


def _scores(queries: Tensor, vectors: np.ndarray) -> Tensor:
    """(n, dim) float32 queries against (m, dim) rows: (n, m) dot products, in float32."""
    with OneDNNLinear():
        return F.linear(queries, torch.as_tensor(vectors, device=queries.device).float())


def _blank(scores: Tensor, ids: np.ndarray, exclude: np.ndarray) -> None:
    """Put -inf into each row's cell of its excluded id, where the block holds that id."""
    columns = np.searchsorted(ids, exclude)
    held = (columns < len(ids)) & (ids[np.minimum(columns, len(ids) - 1)] == exclude)
    rows = np.flatnonzero(held)
    if rows.size:
        scores[torch.as_tensor(rows), torch.as_tensor(columns[rows])] = -torch.inf
