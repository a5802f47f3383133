"""The batch plan: which pairs train together, batch by batch. A pure function of pairs, settings and epoch.

No text stands twice in a batch, whatever its role. Every batch is full and, where tasks are named, of one task. Many
pairs are dealt in blocks, one after the other, so that only their ids grow with them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from .hard_batches import Walks, neighbor_pairs

BLOCK_PAIRS = 4_194_304
REPAIR_ROUNDS = 30


@dataclass(frozen=True)
class PlanSettings:
    """What determines a batch plan, besides the pairs and the epoch.

    Attributes:
        negatives: How many of each pair's own negatives take part.
        hardness: Pairs that each pair brings along from its anchor's neighbours; 0 for random batches.
        block_pairs: Pairs that are dealt together.
    """

    batch_size: int
    seed: int = 0
    negatives: int = 0
    hardness: int = 0
    block_pairs: int = BLOCK_PAIRS

    def blocks(self, pairs: int) -> int:
        """The number of blocks of so many pairs."""
        return max(1, math.ceil(pairs / self.block_pairs))

    def rows_of_block(self, pairs: int, epoch: int, block: int) -> np.ndarray:
        """The rows of one block of an epoch; together the blocks hold each row once.

        Rows are permuted by ``row * stride + shift`` modulo their number, which needs no memory for the other blocks.
        There may be up to 3 * 10**9 (products stay within 63 bits). Epoch and block are counted from 0.

        Returns:
            (n,) int64 rows, ascending.
        """
        random, blocks = np.random.default_rng([self.seed, epoch]), self.blocks(pairs)
        stride, shift = int(random.integers(pairs // 4, max(2, pairs))), int(random.integers(pairs))
        while math.gcd(stride, pairs) != 1:
            stride += 1
        places = np.arange(block * pairs // blocks, (block + 1) * pairs // blocks)
        return np.sort((places * stride + shift) % pairs)


def plan_of_index(
    index: GuideIndex, labels: np.ndarray, settings: PlanSettings, epoch: int = 0, block: int = 0
) -> np.ndarray:
    """Deal the pairs (n,) of one block of an epoch into batches: (batches, batch_size) int64 rows of ``labels``."""
    ids = index.pairs(labels, settings.negatives)
    texts = index.content_ids(np.column_stack([ids.positives, ids.anchors, ids.negatives]))
    walks = Walks(neighbor_pairs(index, labels), 1 + settings.hardness) if settings.hardness and len(labels) else None
    random = np.random.default_rng([settings.seed, epoch, block])
    return batch_plan(texts, index.tasks(labels), settings.batch_size, random, walks)


def batch_plan(
    texts: np.ndarray, tasks: np.ndarray, batch_size: int, random: np.random.Generator, walks: Walks | None = None
) -> np.ndarray:
    """Deal pairs into batches.

    Pairs that share a positive are dealt to different batches one after the other; pairs that still clash are swapped
    with random ones until none does. Pairs that fit nowhere, and those that fill no batch, are left out of the epoch.

    Args:
        texts: (pairs, T) int64 content ids: positive, anchor, negatives; -1 for none.
        tasks: (pairs,) number of each pair's task.
        batch_size: Pairs a batch.
        random: Determines the plan, with the other arguments.
        walks: Make hard batches; None for random ones.

    Returns:
        (batches, batch_size) int64 rows of ``texts``; tasks come in proportion to their size.
    """
    by_task = [_deal(texts, np.flatnonzero(tasks == task), batch_size, random, walks) for task in np.unique(tasks)]
    plan = np.concatenate([np.empty((0, batch_size), dtype=np.int64), *by_task])
    return plan[random.permutation(len(plan))]


def _deal(
    texts: np.ndarray, pairs: np.ndarray, size: int, random: np.random.Generator, walks: Walks | None
) -> np.ndarray:
    pairs = _cap_frequent(texts, random.permutation(pairs), size)
    batches = len(pairs) // size
    if batches == 0:
        return np.empty((0, size), dtype=np.int64)
    order = walks.order(pairs, random) if walks else _by_positive(texts, pairs, random)
    full, spare = order[: batches * size], order[batches * size :]
    plan = full.reshape(batches, size).copy() if walks else full.reshape(size, batches).T.copy()
    clashing = _repair(texts, plan, random)
    return _fill(texts, plan, clashing, spare) if clashing.any() else plan


def _by_positive(texts: np.ndarray, pairs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The pairs with those of one positive together, and the positives in random order."""
    _, group = np.unique(texts[pairs, 0], return_inverse=True)
    return pairs[np.argsort(random.permutation(group.max() + 1)[group], kind="stable")]


def _cap_frequent(texts: np.ndarray, pairs: np.ndarray, size: int) -> np.ndarray:
    """Leave out pairs of a text that stands in more pairs than there will be batches."""
    while True:
        before = len(pairs)
        for column in texts.T:
            batches = len(pairs) // size
            order = np.argsort(column[pairs], kind="stable")
            values = column[pairs][order]
            occurrence = np.arange(len(pairs)) - np.searchsorted(values, values, side="left")
            pairs = pairs[np.sort(order[(occurrence < max(1, batches)) | (values < 0)])]
        if len(pairs) == before:
            return pairs


def _clashes(texts: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """(batches, size) whether a pair shares a text with an earlier pair of its batch."""
    text = texts[plan.ravel()]
    pair, column = np.nonzero(text >= 0)
    of_batch = text[pair, column] * len(plan) + pair // plan.shape[1]
    order = np.argsort(of_batch, kind="stable")
    pair, of_batch = pair[order], of_batch[order]
    clashing = np.zeros(plan.size, dtype=bool)
    clashing[pair[1:][(of_batch[1:] == of_batch[:-1]) & (pair[1:] != pair[:-1])]] = True
    return clashing.reshape(plan.shape)


def _repair(texts: np.ndarray, plan: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Swap clashing pairs with random ones, in place, until none clashes or rounds run out; returns what clashes."""
    flat, clashing = plan.ravel(), _clashes(texts, plan)
    for _ in range(REPAIR_ROUNDS):
        from_ = np.flatnonzero(clashing)
        if len(from_) == 0 or len(plan) == 1:
            break
        to = random.choice(flat.size, size=len(from_), replace=False)
        free = ~np.isin(to, from_)
        from_, to = from_[free], to[free]
        flat[from_], flat[to] = flat[to], flat[from_]
        changed = np.unique(np.concatenate([from_, to]) // plan.shape[1])
        clashing[changed] = _clashes(texts, plan[changed])
    return clashing


def _fill(texts: np.ndarray, plan: np.ndarray, clashing: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Replace pairs that still clash by spare ones, or by those of the last batches, which are then given up."""
    batches = deque(sorted((row[~bad].tolist() for row, bad in zip(plan, clashing, strict=True)), key=len))
    pool, size, full = deque([*spare, *plan[clashing]]), plan.shape[1], []
    while batches:
        batch, unfit = batches.pop(), []
        present = set(texts[batch].ravel().tolist()) - {-1}
        while len(batch) < size and (pool or batches):
            if not pool:
                pool.extend(batches.popleft())
            pair = pool.popleft()
            own = set(texts[pair].tolist()) - {-1}
            if present.isdisjoint(own):
                batch.append(pair)
                present |= own
            else:
                unfit.append(pair)  # behind the others, so that not every batch begins with it
        pool.extend(unfit)
        if len(batch) == size:
            full.append(batch)
    return np.array(full, dtype=np.int64).reshape(-1, size)
