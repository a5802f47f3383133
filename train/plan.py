"""The batch plan: which pairs train together, batch by batch. A pure function of pairs, seed, epoch and batch size.

No text stands twice in a batch, whatever its role. Every batch is full and, where tasks are named, of one task. Many
pairs are dealt in blocks, one after the other, so that only their ids grow with them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from ..shared.errors import SettingsError
from ..shared.index import GuideIndex
from ..shared.scaling import PLAN_BLOCK

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

REPAIR_ROUNDS = 30


def batch_plan(
    texts: np.ndarray, tasks: np.ndarray, batch_size: int, seed: int, epoch: int, block: int = 0
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

    Returns:
        (batches, batch_size) int64 rows of ``texts``; tasks come in proportion to their size.
    """
    random = np.random.default_rng([seed, epoch, block])
    dealt = [_deal(texts, np.flatnonzero(tasks == task), batch_size, random) for task in np.unique(tasks)]
    plan = np.concatenate([np.empty((0, batch_size), dtype=np.int64), *dealt])
    return plan[random.permutation(len(plan))]


def _deal(texts: np.ndarray, pairs: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Full batches of one task's pairs."""
    pairs = _cap_frequent(texts, random.permutation(pairs), size)
    batches = len(pairs) // size
    if batches == 0:
        return np.empty((0, size), dtype=np.int64)
    # Pairs with the same positive stand together in the dealing order, groups in random order.
    _, group = np.unique(texts[pairs, 0], return_inverse=True)
    order = pairs[np.argsort(random.permutation(group.max() + 1)[group], kind="stable")]
    dealt, spare = order[: batches * size], order[batches * size :]
    plan = dealt.reshape(size, batches).T.copy()
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
        swapped = plan.copy()
        swapped.ravel()[from_], swapped.ravel()[to] = flat[to], flat[from_]
        now = _clashes(texts, swapped)
        plan[:], clashing = swapped, now
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


def plan_of_index(
    index: GuideIndex, labels: np.ndarray, batch_size: int, seed: int, epoch: int, negatives: int, block: int = 0
) -> np.ndarray:
    """``batch_plan`` of some pairs of an index, by pair id.

    Args:
        index: An open index.
        labels: (n,) pair ids.
        batch_size: Pairs a batch.
        seed: Of the whole run.
        epoch: Counted from 0.
        negatives: How many negatives of each pair take part.
        block: Which block of the epoch's pairs these are, from 0.

    Returns:
        (batches, batch_size) int64 rows of ``labels``.
    """
    ids = index.pairs(labels, negatives)
    texts = index.content_ids(np.column_stack([ids.positives, ids.anchors, ids.negatives]))
    return batch_plan(texts, index.tasks(labels), batch_size, seed, epoch, block)


def rows_of_block(pairs: int, block: int, blocks: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of one block of an epoch; together the blocks hold each row once.

    Rows are permuted by ``row * stride + shift`` modulo their number, which needs no memory for the other blocks.

    Args:
        pairs: Rows in all, below 3 * 10**9 (products stay within 63 bits).
        block: Which one, from 0.
        blocks: How many there are.
        seed: Of the whole run.
        epoch: Counted from 0.

    Returns:
        (n,) int64 rows, ascending.
    """
    random = np.random.default_rng([seed, epoch])
    stride, shift = int(random.integers(pairs // 4, max(2, pairs))), int(random.integers(pairs))
    while math.gcd(stride, pairs) != 1:
        stride += 1
    places = np.arange(block * pairs // blocks, (block + 1) * pairs // blocks)
    return np.sort((places * stride + shift) % pairs)


class PlannedBatches(DefaultBatchSampler):
    """The batch plan as the trainer takes it; give ``PlannedBatches.of(index)`` as ``args.batch_sampler``.

    Its length is exact, it knows no randomness but the seed, and skipping batches on resume reads no text. More pairs
    than ``block`` are dealt block by block; their length is counted by dealing the epoch once.
    """

    def __init__(
        self,
        index: GuideIndex,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        negatives: int,
        block: int = PLAN_BLOCK,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True, seed=seed)
        self.index = index
        self.labels = np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64)
        self.negatives = negatives
        self.blocks = max(1, math.ceil(len(dataset) / block))
        self._dealt: tuple[int, int, np.ndarray] | None = None
        self._lengths: dict[int, int] = {}

    @staticmethod
    def of(index: GuideIndex, negatives: int | None = None, block: int = PLAN_BLOCK) -> Callable[..., PlannedBatches]:
        """What to give as ``batch_sampler`` in the training arguments; checkpoints can hold it.

        Args:
            index: The guide index.
            negatives: How many negatives of each pair take part; default: the negative columns of the data set.
            block: Pairs dealt at a time; it is part of what determines the plan.
        """
        return partial(_planned, index, negatives, block)

    def deal(self, block: int) -> np.ndarray:
        """One block of the current epoch: (batches, batch_size) int64 rows of the data set."""
        if self._dealt is None or self._dealt[:2] != (self.epoch, block):
            rows = rows_of_block(len(self.labels), block, self.blocks, self.seed, self.epoch)
            labels = self.labels[rows]
            plan = plan_of_index(self.index, labels, self.batch_size, self.seed, self.epoch, self.negatives, block)
            self._dealt = (self.epoch, block, rows[plan])
        return self._dealt[2]

    def __iter__(self) -> Iterator[list[int]]:
        for block in range(self.blocks):
            for batch in self.deal(block):
                yield batch.tolist()

    def __len__(self) -> int:
        if self.epoch not in self._lengths:
            length = sum(len(self.deal(block)) for block in range(self.blocks))
            if not length:
                raise SettingsError(
                    f"Not one batch of {self.batch_size} pairs can be filled without a text standing twice in it",
                    where=f"{len(self.labels)} pairs in {self.index.layout.root}",
                    fix="give a smaller --batch-size",
                )
            if left_out := len(self.labels) - length * self.batch_size:
                logger.info("epoch %d: %d of %d pairs sit out", self.epoch, left_out, len(self.labels))
            self._lengths = {self.epoch: length}
        return self._lengths[self.epoch]


def _planned(
    index: GuideIndex,
    negatives: int | None,
    block: int,
    dataset: Dataset,
    batch_size: int,
    seed: int = 0,
    **_: object,
) -> PlannedBatches:
    if negatives is None:
        negatives = sum(name.startswith("negative") for name in dataset.column_names)
    return PlannedBatches(index, dataset, batch_size, seed, negatives, block)
