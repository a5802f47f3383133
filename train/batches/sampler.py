"""The batch plan as the trainer takes it: a sampler over the pairs of an index, dealt block by block."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from .clusters import blocks_of, clusters_of
from .hard_batches import nearby_pairs
from .plan import batch_plan

logger = logging.getLogger(__name__)

PLAN_BLOCK = 4_194_304  # pairs that a batch plan deals at a time


def plan_of_index(
    index: GuideIndex,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    negatives: int,
    block: int = 0,
    hardness: int = 0,
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
        hardness: Pairs that each pair brings along from its anchor's neighbours; 0 for random batches.

    Returns:
        (batches, batch_size) int64 rows of ``labels``.
    """
    ids = index.pairs(labels, negatives)
    texts = index.content_ids(np.column_stack([ids.positives, ids.anchors, ids.negatives]))
    nearby = nearby_pairs(index, labels, hardness) if hardness and len(labels) else None
    return batch_plan(texts, index.tasks(labels), batch_size, seed, epoch, block, nearby)


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

    It knows no randomness but the seed, and skipping batches on resume reads no text. More pairs than ``block`` are
    dealt block by block. Every epoch is as long as the first, which is counted by dealing it once: the trainer reckons
    with that. Where texts clash, another epoch may fill more batches, which it leaves out, or fewer, and then takes the
    first epoch's to the full number.
    """

    def __init__(
        self,
        index: GuideIndex | Mapping[str, GuideIndex],
        negatives: int | None,
        block: int,
        hardness: int,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        **_: object,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True, seed=seed)
        self.index = index if isinstance(index, GuideIndex) else _index_of(index, dataset)
        if negatives is None:
            negatives = sum(name.startswith("negative") for name in dataset.column_names)
        self.labels = np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64)
        self.negatives, self.hardness = negatives, hardness
        self.blocks = max(1, math.ceil(len(dataset) / block))
        self._dealt: tuple[int, int, np.ndarray] | None = None
        self._clustered: tuple[int, np.ndarray] | None = None
        self._length = 0

    @staticmethod
    def of(
        index: GuideIndex | Mapping[str, GuideIndex],
        negatives: int | None = None,
        block: int = PLAN_BLOCK,
        hardness: int = 0,
    ) -> Callable[..., PlannedBatches]:
        """What to give as ``batch_sampler`` in the training arguments; checkpoints can hold it.

        Args:
            index: The guide index; for a trainer of several data sets, the index of each by the data set's name.
            negatives: How many negatives of each pair take part; default: the negative columns of the data set.
            block: Pairs dealt at a time; it is part of what determines the plan.
            hardness: Pairs that each pair brings along from its anchor's neighbours; 0 for random batches.
        """
        return partial(PlannedBatches, index, negatives, block, hardness)

    def deal(self, epoch: int, block: int) -> np.ndarray:
        """One block of an epoch: (batches, batch_size) int64 rows of the data set."""
        if self._dealt is None or self._dealt[:2] != (epoch, block):
            rows = self._rows(epoch, block)
            labels = self.labels[rows]
            dealing = (self.batch_size, self.seed, epoch, self.negatives, block, self.hardness)
            plan = plan_of_index(self.index, labels, *dealing)
            self._dealt = (epoch, block, rows[plan])
        return self._dealt[2]

    def _rows(self, epoch: int, block: int) -> np.ndarray:
        """The rows of one block; those of hard batches come in clusters."""
        if not self.hardness or self.blocks == 1:
            return rows_of_block(len(self.labels), block, self.blocks, self.seed, epoch)
        if self._clustered is None or self._clustered[0] != epoch:
            clusters = clusters_of(self.index, self.labels, self.seed, epoch)
            batches = len(self.labels) // self.blocks // self.batch_size
            self._clustered = epoch, blocks_of(clusters, self.blocks, max(1, batches // 2), self.seed, epoch)
        return np.flatnonzero(self._clustered[1] == block)

    def __iter__(self) -> Iterator[list[int]]:
        blocks = itertools.product((self.epoch, 0), range(self.blocks))
        batches = (batch.tolist() for epoch, block in blocks for batch in self.deal(epoch, block))
        yield from itertools.islice(batches, len(self))

    def __len__(self) -> int:
        if not self._length:
            refuse_too_few(len(self.labels), self.batch_size, self.index)
            length = sum(len(self.deal(0, block)) for block in range(self.blocks))
            if not length:
                raise SettingsError(
                    f"Not one batch of {self.batch_size} pairs can be filled without a text standing twice in it",
                    where=f"{len(self.labels)} pairs in {self.index.layout.root}",
                    fix="give a smaller --batch-size",
                )
            if left_out := len(self.labels) - length * self.batch_size:
                logger.info("%d of %d pairs sit out of an epoch", left_out, len(self.labels))
            self._length = length
        return self._length


def refuse_too_few(pairs: int, batch_size: int, index: GuideIndex) -> None:
    """Raise SettingsError where pairs do not fill one batch."""
    if pairs < batch_size:
        raise SettingsError(
            f"{pairs} pairs are fewer than a batch of {batch_size}",
            where=str(index.layout.root),
            fix=f"give a batch size (--batch-size) of {pairs} or less" if pairs > 1 else "train on more pairs",
        )


def _index_of(indexes: Mapping[str, GuideIndex], dataset: Dataset) -> GuideIndex:
    """The index of a data set by its name, which the trainer adds to rows where there is a loss for each."""
    name = str(dataset[0].get("dataset_name"))
    if name not in indexes:
        raise SettingsError(
            f"There is no index for the data set {name!r}",
            where=f"PlannedBatches.of, which was given {sorted(indexes)}",
            fix="give the trainer data sets, losses and indexes as dicts with the same names",
        )
    return indexes[name]
