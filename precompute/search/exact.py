"""Exact search: the k closest rows to each query by guide score, block by block, on any torch device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...shared.models.onednn import OneDNNLinear

BLOCK_ROWS = 16_384
# Every block of queries reads all rows again, and copies them to an accelerator; there a block has 0.5 GB of scores.
CPU_QUERIES, ACCELERATOR_QUERIES = 1_024, 8_192

Take = Callable[[np.ndarray], np.ndarray]


class SearchResult(NamedTuple):
    """The closest rows: (n, k) float32 scores, best first, and (n, k) int64 ids; -1 where there are fewer than k."""

    scores: np.ndarray
    ids: np.ndarray


def exact_search(
    queries: np.ndarray, take: Take, ids: np.ndarray, k: int, *, exclude: np.ndarray | None = None, device: str = "cpu"
) -> SearchResult:
    """Find the k rows with the highest dot product for each query, computed in float32.

    Args:
        queries: (n, dim) vectors of any float dtype.
        take: Returns the vectors (m, dim) of ids (m,).
        ids: The rows to search, ascending.
        k: Rows to return for each query.
        exclude: (n,) an id that a query must not return (its own); -1 for none.
        device: Torch device.
    """
    results = []
    for rows in _query_blocks(len(queries), device):
        anchors = torch.as_tensor(queries[rows], device=device).float()
        best = torch.full((len(anchors), k), -torch.inf, device=device)
        best_ids = torch.full((len(anchors), k), -1, dtype=torch.int64, device=device)
        for block, scores in _scores(anchors, take, ids, *([] if exclude is None else [exclude[rows]])):
            top, columns = scores.topk(min(k, scores.shape[1]), dim=1)
            both_ids = torch.cat([best_ids, torch.as_tensor(block, device=device)[columns]], dim=1)
            best, order = torch.cat([best, top], dim=1).topk(k, dim=1)
            best_ids = both_ids.gather(1, order)
        best_ids[best == -torch.inf] = -1
        results.append((best.cpu().numpy(), best_ids.cpu().numpy()))
    return SearchResult(*map(np.concatenate, zip(*results, strict=True)))


def count_above(
    queries: np.ndarray,
    thresholds: np.ndarray,
    take: Take,
    ids: np.ndarray,
    *,
    own: np.ndarray,
    exclude: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """Count the rows that score strictly above each query's threshold.

    Args:
        queries: (n, dim) vectors.
        thresholds: (n,) float32.
        take: As for ``exact_search``.
        ids: The rows to search, ascending.
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
        for _, scores in _scores(anchors, take, ids, own[rows], exclude[rows]):
            counts[rows] += (scores > limit).sum(dim=1).cpu().numpy()
    return counts


def blocks(take: Take, ids: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the ids and vectors of rows, so many at a time."""
    for start in range(0, len(ids), BLOCK_ROWS):
        block = ids[start : start + BLOCK_ROWS]
        yield block, take(block)


def _query_blocks(count: int, device: str) -> list[slice]:
    rows = CPU_QUERIES if device == "cpu" else ACCELERATOR_QUERIES
    return [slice(start, start + rows) for start in range(0, count, rows)]


def _scores(queries: Tensor, take: Take, ids: np.ndarray, *excluded: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield block by block the ids (m,) and the float32 scores (n, m), -inf at each query's excluded ids (n,)."""
    for block, vectors in blocks(take, ids):
        with OneDNNLinear():
            scores = F.linear(queries, torch.as_tensor(vectors, device=queries.device).float())
        for exclude in excluded:
            columns = np.minimum(np.searchsorted(block, exclude), len(block) - 1)
            rows = np.flatnonzero(block[columns] == exclude)
            if rows.size:
                scores[torch.as_tensor(rows), torch.as_tensor(columns[rows])] = -torch.inf
        yield block, scores
