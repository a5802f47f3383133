"""Exact search: the k closest rows to each query by guide score, block by block, on any torch device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...shared.models.onednn import OneDNNLinear

BLOCK_ROWS = 16_384
# Every block of queries reads all rows again, and copies them to an accelerator; there a block has 0.5 GB of scores.
CPU_QUERIES, ACCELERATOR_QUERIES = 1_024, 8_192

VectorBlocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class SearchResult(NamedTuple):
    """The closest rows: (n, k) float32 scores, best first, and (n, k) int64 ids; -1 where there are fewer than k."""

    scores: np.ndarray
    ids: np.ndarray


def exact_search(
    queries: np.ndarray, blocks: VectorBlocks, k: int, *, exclude: np.ndarray | None = None, device: str = "cpu"
) -> SearchResult:
    """Find the k rows with the highest dot product for each query.

    Args:
        queries: (n, dim) vectors, any float dtype; scores are computed in float32.
        blocks: Called for each block of queries; yields ``(ids, vectors)`` of the rows to search, ids ascending.
        k: Rows to return for each query.
        exclude: (n,) an id that a query must not return (its own); -1 for none.
        device: Torch device.
    """
    results = [
        _search_block(queries[rows], blocks, k, None if exclude is None else exclude[rows], device)
        for rows in _query_blocks(len(queries), device)
    ]
    scores, ids = zip(*results, strict=True)
    return SearchResult(np.concatenate(scores), np.concatenate(ids))


def _search_block(
    queries: np.ndarray, blocks: VectorBlocks, k: int, exclude: np.ndarray | None, device: str
) -> SearchResult:
    anchors = torch.as_tensor(queries, device=device).float()
    best = torch.full((len(anchors), k), -torch.inf, device=device)
    best_ids = torch.full((len(anchors), k), -1, dtype=torch.int64, device=device)
    for ids, vectors in blocks():
        scores = _scores(anchors, vectors)
        if exclude is not None:
            _mask(scores, ids, exclude)
        top, columns = scores.topk(min(k, scores.shape[1]), dim=1)
        both = torch.cat([best, top], dim=1)
        both_ids = torch.cat([best_ids, torch.as_tensor(ids, device=device)[columns]], dim=1)
        best, order = both.topk(k, dim=1)
        best_ids = both_ids.gather(1, order)
    best_ids[best == -torch.inf] = -1
    return SearchResult(best.cpu().numpy(), best_ids.cpu().numpy())


def count_above(
    queries: np.ndarray,
    thresholds: np.ndarray,
    blocks: VectorBlocks,
    *,
    own: np.ndarray,
    exclude: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """Count the rows that score strictly above each query's threshold.

    Args:
        queries: (n, dim) vectors.
        thresholds: (n,) float32.
        blocks: As for ``exact_search``.
        own: (n,) id of the row whose score the threshold is; never counted, however its score is rounded.
        exclude: (n,) another id that is not counted; -1 for none.
        device: Torch device.

    Returns:
        (n,) int64.
    """
    counts = np.zeros(len(queries), dtype=np.int64)
    for rows in _query_blocks(len(queries), device):
        anchors = torch.as_tensor(queries[rows], device=device).float()
        limit = torch.as_tensor(thresholds[rows], device=device)[:, None]
        for ids, vectors in blocks():
            scores = _scores(anchors, vectors)
            _mask(scores, ids, own[rows])
            _mask(scores, ids, exclude[rows])
            counts[rows] += (scores > limit).sum(dim=1).cpu().numpy()
    return counts


def _query_blocks(count: int, device: str) -> list[slice]:
    rows = CPU_QUERIES if device == "cpu" else ACCELERATOR_QUERIES
    return [slice(start, start + rows) for start in range(0, count, rows)]


def _scores(queries: Tensor, vectors: np.ndarray) -> Tensor:
    """(n, dim) float32 queries against (m, dim) rows: (n, m) dot products, in float32."""
    with OneDNNLinear():
        return F.linear(queries, torch.as_tensor(vectors, device=queries.device).float())


def _mask(scores: Tensor, ids: np.ndarray, exclude: np.ndarray) -> None:
    """Set each row's score with its excluded id to -inf, where the block has that id."""
    columns = np.minimum(np.searchsorted(ids, exclude), len(ids) - 1)
    rows = np.flatnonzero(ids[columns] == exclude)
    if rows.size:
        scores[torch.as_tensor(rows), torch.as_tensor(columns[rows])] = -torch.inf
