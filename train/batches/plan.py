"""The batch plan: which pairs train together, batch by batch. A pure function of pairs, seed, epoch and batch size.

No text stands twice in a batch, whatever its role. Every batch is full and, where tasks are named, of one task. Many
pairs are dealt in blocks, one after the other, so that only their ids grow with them.
"""

from __future__ import annotations

import numpy as np

from .hard_batches import Nearby, in_walks

REPAIR_ROUNDS = 30


def batch_plan(
    texts: np.ndarray,
    tasks: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    block: int = 0,
    nearby: Nearby | None = None,
) -> np.ndarray:
    """Deal pairs into batches.

    Pairs that share a positive are dealt to different batches one after the other; what still clashes is swapped with
    random pairs until it does not. Pairs that fit nowhere, and the rest that fills no batch, sit this epoch out.

    Args:
        texts: (pairs, T) int64 content ids: positive, anchor, negatives; -1 for none.
        tasks: (pairs,) number of each pair's task.
        batch_size: Pairs a batch.
        seed: Of the whole run.
        epoch: Counted from 0.
        block: Which block of the epoch's pairs these are, from 0.
        nearby: For hard batches, the pairs that each pair brings along; None for random ones.

    Returns:
        (batches, batch_size) int64 rows of ``texts``; tasks come in proportion to their size.
    """
    random = np.random.default_rng([seed, epoch, block])
    dealt = [_deal(texts, np.flatnonzero(tasks == task), batch_size, random, nearby) for task in np.unique(tasks)]
    plan = np.concatenate([np.empty((0, batch_size), dtype=np.int64), *dealt])
    return plan[random.permutation(len(plan))]


def _deal(
    texts: np.ndarray, pairs: np.ndarray, size: int, random: np.random.Generator, nearby: Nearby | None
) -> np.ndarray:
    """Full batches of one task's pairs."""
    pairs = _cap_frequent(texts, random.permutation(pairs), size)
    batches = len(pairs) // size
    if batches == 0:
        return np.empty((0, size), dtype=np.int64)
    if nearby is None:
        # Pairs with the same positive stand together in the dealing order, groups in random order.
        _, group = np.unique(texts[pairs, 0], return_inverse=True)
        order = pairs[np.argsort(random.permutation(group.max() + 1)[group], kind="stable")]
    else:
        order = in_walks(pairs, nearby, random)
    dealt, spare = order[: batches * size], order[batches * size :]
    plan = dealt.reshape(size, batches).T.copy() if nearby is None else dealt.reshape(batches, size).copy()
    clashing = _repair(texts, plan, random)
    return _fill(texts, plan, clashing, spare)


def _cap_frequent(texts: np.ndarray, pairs: np.ndarray, size: int) -> np.ndarray:
    """Leave out pairs of a text that stands in more pairs than there will be batches."""
    while True:
        before = len(pairs)
        for column in texts.T:
            batches = len(pairs) // size
            order = np.argsort(column[pairs], kind="stable")
            values = column[pairs][order]
            place = np.arange(len(pairs)) - np.searchsorted(values, values, side="left")
            pairs = pairs[np.sort(order[(place < max(1, batches)) | (values < 0)])]
        if len(pairs) == before:
            return pairs


def _clashes(texts: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """(batches, size) whether a pair shares a text with an earlier pair of its batch."""
    batches, size = plan.shape
    cells = texts[plan.ravel()]
    pair = np.repeat(np.arange(len(cells)), cells.shape[1])
    value, batch = cells.ravel(), pair // size
    held = value >= 0
    pair, value, batch = pair[held], value[held], batch[held]
    order = np.lexsort((pair, value, batch))
    pair, value, batch = pair[order], value[order], batch[order]
    again = (value[1:] == value[:-1]) & (batch[1:] == batch[:-1]) & (pair[1:] != pair[:-1])
    found = np.zeros(batches * size, dtype=bool)
    found[pair[1:][again]] = True
    return found.reshape(batches, size)


def _repair(texts: np.ndarray, plan: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Swap clashing pairs with random ones, in place, until none clashes or rounds run out; returns what clashes."""
    flat = plan.ravel()
    clashing = _clashes(texts, plan)
    for _ in range(REPAIR_ROUNDS):
        count = int(clashing.sum())
        if count == 0 or len(plan) == 1:
            break
        from_ = np.flatnonzero(clashing.ravel())
        to = random.choice(flat.size, size=count, replace=False)
        free = ~np.isin(to, from_)
        from_, to = from_[free], to[free]
        flat[from_], flat[to] = flat[to], flat[from_]
        clashing = _clashes(texts, plan)
    return clashing


def _fill(texts: np.ndarray, plan: np.ndarray, clashing: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Replace pairs that still clash by spare ones, or by those of the last batches, which are then given up."""
    if not clashing.any():
        return plan
    batches = [list(row[~bad]) for row, bad in zip(plan, clashing, strict=True)]
    batches.sort(key=len, reverse=True)
    pool = [*spare, *plan[clashing]]
    size, full = plan.shape[1], []
    while batches:
        batch = batches.pop(0)
        taken = set(texts[batch].ravel().tolist()) - {-1}
        while len(batch) < size:
            fitting = next((k for k, pair in enumerate(pool) if taken.isdisjoint(texts[pair].tolist())), None)
            if fitting is None:
                if not batches:
                    break
                pool.extend(batches.pop())
                continue
            pair = pool.pop(fitting)
            batch.append(pair)
            taken |= set(texts[pair].tolist()) - {-1}
        if len(batch) == size:
            full.append(batch)
    return np.array(full, dtype=np.int64).reshape(-1, size)
