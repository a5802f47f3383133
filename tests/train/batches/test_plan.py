"""The batch plan: no text twice, one task a batch, exact length, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.batches.plan import PlanSettings, batch_plan, plan_of_index
from gistcache.train.batches.sampler import PlannedBatches

from tests.conftest import build_test_index, random_pairs, random_texts


def plan_of(texts, tasks, size, seed=0, epoch=0):
    return batch_plan(texts, tasks, size, np.random.default_rng([seed, epoch]))


def random_corpus(pairs, documents, anchors, tasks, seed=0):
    random = np.random.default_rng(seed)
    texts = np.column_stack(
        [
            random.integers(0, documents, pairs),
            documents + random.integers(0, anchors, pairs),
            np.where(random.random(pairs) < 0.5, random.integers(0, documents, pairs), -1),
        ]
    )
    return texts, np.sort(random.integers(0, tasks, pairs))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("documents", "size"), [(5000, 64), (200, 16), (40, 8)])
def test_a_text_stands_once_in_a_batch_and_a_batch_has_one_task(seed, documents, size):
    texts, tasks = random_corpus(1000, documents, 400, 3, seed)
    texts[texts[:, 0] == texts[:, 2], 2] = -1
    plan = plan_of(texts, tasks, size, seed)
    assert plan.dtype == np.int64
    assert len(plan)
    for batch in plan:
        present = texts[batch].ravel()
        present = present[present >= 0]
        assert len(np.unique(present)) == len(present)
        assert len(np.unique(tasks[batch])) == 1
    assert len(np.unique(plan)) == plan.size  # no pair twice in an epoch


def test_all_batches_that_can_be_filled_are():
    texts, tasks = random_corpus(1003, 5000, 4000, 1)
    plan = plan_of(texts, tasks, 64)
    assert plan.shape == (1003 // 64, 64)


def test_tasks_come_in_proportion_to_their_size():
    texts = np.arange(2400).reshape(1200, 2)
    tasks = np.repeat([0, 1], [900, 300])
    plan = plan_of(texts, tasks, 30)
    assert np.bincount(tasks[plan[:, 0]]).tolist() == [30, 10]
    assert len(np.unique(tasks[plan[:10, 0]])) == 2  # and mixed, not one after the other


def test_a_text_in_most_pairs_does_not_stop_the_plan():
    texts = np.column_stack([np.where(np.arange(100) < 60, 0, np.arange(100)), 1000 + np.arange(100)])
    plan = plan_of(texts, np.zeros(100, int), 10)
    assert 3 <= len(plan) <= 10
    assert all(len(np.unique(texts[batch])) == 20 for batch in plan)


def test_the_seed_and_the_epoch_determine_the_plan():
    texts, tasks = random_corpus(500, 1000, 1000, 2)
    first = plan_of(texts, tasks, 16, 7, 0)
    assert np.array_equal(first, plan_of(texts, tasks, 16, 7, 0))
    assert not np.array_equal(first, plan_of(texts, tasks, 16, 7, 1))
    assert not np.array_equal(first, plan_of(texts, tasks, 16, 8, 0))


def test_the_sampler_knows_its_length_and_follows_the_epoch(small_index):
    index = GuideIndex.open(small_index)
    sampler = PlannedBatches.of(index)(index.to_dataset(), 8, seed=3)
    first = list(sampler)
    assert len(first) == len(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_every_epoch_is_as_long_as_the_first(tmp_path, guide_folder):
    shared, random = random_texts(16, seed=7), np.random.default_rng(0)  # so few that not all batches can be filled
    rows = random_pairs(60, seed=5)
    rows = [row | {"negative": [shared[place] for place in random.choice(16, 2, replace=False)]} for row in rows]
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder))
    sampler = PlannedBatches.of(index)(index.to_dataset(), 5, seed=3)
    plans = [plan_of_index(index, sampler.labels, sampler.settings, epoch).tolist() for epoch in range(8)]
    length = len(plans[0])
    assert min(map(len, plans)) < length < max(map(len, plans))
    for epoch, own in enumerate(plans):
        sampler.set_epoch(epoch)
        assert len(sampler) == length
        assert list(sampler) == [*own, *plans[0]][:length]


def test_blocks_hold_each_row_once_and_differ_by_epoch():
    settings = PlanSettings(8, seed=3, block_pairs=150)
    assert settings.blocks(1000) == 7
    blocks = [settings.rows_of_block(1000, 0, block) for block in range(7)]
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(1000))
    assert not np.array_equal(blocks[0], settings.rows_of_block(1000, 1, 0))
    many = PlanSettings(8, seed=5, block_pairs=2_999)
    last = many.rows_of_block(2_999_999_999, 2, many.blocks(2_999_999_999) - 1)  # products near the end of 63 bits
    assert last.min() >= 0
    assert last.max() < 2_999_999_999
    assert len(np.unique(last)) == len(last)


@pytest.mark.parametrize("hardness", [0, 3])
def test_a_plan_in_blocks_keeps_every_rule(small_index, hardness):
    index = GuideIndex.open(small_index)
    dataset = index.to_dataset()
    sampler = PlannedBatches.of(index, block=40, hardness=hardness)(dataset, 8, seed=3)
    assert sampler.blocks > 1
    batches = list(sampler)
    assert len(batches) == len(sampler)
    rows = np.concatenate(batches)
    assert len(np.unique(rows)) == len(rows) > 0.5 * len(dataset)
    for batch in batches:
        ids = index.pairs(np.asarray(dataset[batch]["label"]), index.max_negatives)
        for row, content in enumerate(index.content_ids(np.column_stack([ids.anchors, ids.positives, ids.negatives]))):
            others = np.delete(np.arange(len(batch)), row)
            rest = index.content_ids(np.column_stack([ids.anchors, ids.positives, ids.negatives]))[others]
            assert not np.isin(content[content >= 0], rest).any()
    again = PlannedBatches.of(index, block=40, hardness=hardness)(dataset, 8, seed=3)
    assert list(again) == batches
    again.set_epoch(1)
    assert list(again) != batches


def test_a_batch_that_cannot_be_filled_is_an_error_that_names_the_way_out(small_index):
    index = GuideIndex.open(small_index)
    with pytest.raises(SettingsError, match="batch-size"):
        len(PlannedBatches.of(index)(index.to_dataset(), 5000))


def test_a_text_in_every_pair_ends_quickly():
    """Ten anchors (labels, say) and one shared negative: no batch can be filled, and that must not take trying all."""
    pairs = np.arange(20_000)
    texts = np.column_stack([pairs + 100, pairs % 10, np.full(20_000, 50)])
    assert len(plan_of(texts, np.zeros(20_000, dtype=np.int32), 64)) == 0
    no_negative = texts[:, :2]
    assert plan_of(no_negative, np.zeros(20_000, dtype=np.int32), 8).shape[1] == 8
