"""The batch plan as the trainer takes it: a sampler over the pairs of an index, dealt block by block."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from .plan import BLOCK_PAIRS, PlanSettings, plan_of_index

logger = logging.getLogger(__name__)

Indexes = GuideIndex | Mapping[str, GuideIndex]


class PlannedBatches(DefaultBatchSampler):
    """The batch plan as a batch sampler; give ``PlannedBatches.of(index)`` as ``args.batch_sampler``.

    The trainer needs epochs of one length, that of the first, which is dealt once to be counted. Where texts clash,
    another epoch may fill more batches, which are left out, or fewer, and then the first epoch's batches fill it up.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        index: Indexes,
        negatives: int | None,
        block: int,
        hardness: int,
        seed: int = 0,
        **_: object,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True, seed=seed)
        if negatives is None:
            negatives = sum(name.startswith("negative") for name in dataset.column_names)
        self.index = index if isinstance(index, GuideIndex) else _index_of(index, dataset)
        self.labels = np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64)
        self.settings = PlanSettings(batch_size, seed, negatives, hardness, block)
        self.blocks = self.settings.blocks(len(self.labels))
        self._last_deal: tuple[int, int, np.ndarray] | None = None
        self._length = 0

    @staticmethod
    def of(
        index: Indexes, negatives: int | None = None, block: int = BLOCK_PAIRS, hardness: int = 0
    ) -> Callable[..., PlannedBatches]:
        """The value for ``batch_sampler`` in the training arguments; checkpoints can store it.

        Args:
            index: The guide index; for a trainer of several data sets, the index of each by the data set's name.
            negatives: How many negatives of each pair take part; default: the negative columns of the data set.
            block: Pairs dealt together.
            hardness: Pairs that each pair brings along from its anchor's neighbours; 0 for random batches.
        """
        return partial(PlannedBatches, index=index, negatives=negatives, block=block, hardness=hardness)

    def _deal(self, epoch: int, block: int) -> np.ndarray:
        """Deal one block of an epoch: (batches, batch_size) int64 rows of the data set."""
        if self._last_deal is None or self._last_deal[:2] != (epoch, block):
            rows = self.settings.rows_of_block(len(self.labels), epoch, block)
            plan = plan_of_index(self.index, self.labels[rows], self.settings, epoch, block)
            self._last_deal = (epoch, block, rows[plan])
        return self._last_deal[2]

    def __iter__(self) -> Iterator[list[int]]:
        blocks = itertools.product((self.epoch, 0), range(self.blocks))
        batches = (batch.tolist() for epoch, block in blocks for batch in self._deal(epoch, block))
        yield from itertools.islice(batches, len(self))

    def __len__(self) -> int:
        if not self._length:
            refuse_too_few(len(self.labels), self.batch_size, self.index)
            length = sum(len(self._deal(0, block)) for block in range(self.blocks))
            if not length:
                raise SettingsError(
                    f"Not one batch of {self.batch_size} pairs can be filled without a text standing twice in it",
                    where=f"{len(self.labels)} pairs in {self.index.layout.root}",
                    fix="give a smaller --batch-size",
                )
            if left_out := len(self.labels) - length * self.batch_size:
                logger.info("%d of %d pairs are left out of an epoch", left_out, len(self.labels))
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
            where=f"PlannedBatches.of with indexes for {sorted(indexes)}",
            fix="give the trainer data sets, losses and indexes as dicts with the same names",
        )
    return indexes[name]
