"""Hard batches: neighbours as a loop finds them, walks that visit each pair once, closer than random batches."""

from __future__ import annotations

import numpy as np
import pytest
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.batches.collators import BatchColumns
from gistcache.train.batches.hard_batches import MAX_NEIGHBORS, Walks, neighbor_pairs
from gistcache.train.batches.hard_negatives import HardNegatives
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.run.run import train_student
from gistcache.train.settings import HardNegativeSettings, LossSettings, TrainSettings


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def test_neighbor_pairs_are_those_whose_positive_is_a_stored_neighbour(index):
    labels = np.random.default_rng(0).permutation(120)[:90]
    neighbors = neighbor_pairs(index, labels)
    ids = index.pairs(labels, 0)
    anchors, positives = index.content_ids(ids.anchors), index.content_ids(ids.positives)
    rows = {row["pair_id"]: row["neighbor_ids"] for table in index.scores() for row in table.to_pylist()}
    for row, label in enumerate(labels.tolist()):
        documents = index.content_ids(np.array(rows[label]))
        expected = [
            int(np.flatnonzero(positives == each)[0])
            for each in documents
            if each in positives and each != positives[row]
        ]
        expected = [other for other in expected if anchors[other] != anchors[row]][:MAX_NEIGHBORS]
        assert [other for other in neighbors[row].tolist() if other >= 0] == expected


def test_walks_go_from_neighbour_to_neighbour_and_visit_each_pair_once():
    ring = np.stack([(np.arange(40) + 1) % 40, (np.arange(40) - 1) % 40], axis=1).astype(np.int32)
    pairs = np.arange(40)
    order = Walks(ring, 8).order(pairs, np.random.default_rng(0))
    assert sorted(order.tolist()) == pairs.tolist()
    steps = np.abs(np.diff(order))
    assert (np.minimum(steps, 40 - steps) <= 8).mean() > 0.8
    alone = Walks(ring, 1).order(pairs, np.random.default_rng(0))
    steps = np.abs(np.diff(alone))
    assert (np.minimum(steps, 40 - steps) <= 8).mean() < 0.6


def closeness(index, plan):
    """How many pairs of its batch are a pair's neighbours."""
    rows = neighbor_pairs(index, np.arange(len(index)))
    return sum(len(set(rows[pair]) & set(batch)) for batch in plan.tolist() for pair in batch) / plan.size


def test_neighbours_stand_together_and_no_text_stands_twice(index):
    labels = np.arange(len(index))
    settings = [PlanSettings(8, seed=1, hardness=hardness) for hardness in (0, 1, 3, 7)]
    plans = [plan_of_index(index, labels, each) for each in settings]
    neighbors = [closeness(index, plan) for plan in plans]
    assert min(neighbors[1:]) > 1.4 * neighbors[0]
    for plan in plans:
        assert len(np.unique(plan)) == plan.size >= 0.8 * len(labels)
        for batch in plan:
            ids = index.pairs(batch, 0)
            texts = [set(index.content_ids(np.array([a, p])).tolist()) - {-1} for a, p, _ in zip(*ids, strict=True)]
            assert sum(map(len, texts)) == len(set.union(*texts))
    again = plan_of_index(index, labels, settings[2])
    assert np.array_equal(again, plans[2])
    other = plan_of_index(index, labels, settings[2], epoch=1)
    assert not np.array_equal(other, plans[2])


def test_a_run_trains_on_this_plan_and_draws_negatives_anew_each_epoch(tmp_path, index, student_folder, monkeypatch):
    batches_of_run = []

    class Watched(BatchColumns):
        def of(self, labels):
            batch, columns = super().of(labels)
            batches_of_run.append(np.column_stack([labels, batch["anchor_guide_batch"].hard_negatives]))
            return batch, columns

    monkeypatch.setattr("gistcache.train.run.trainer.BatchColumns", Watched)
    mining, batches = HardNegativeSettings(hard_negatives=2), []
    settings = TrainSettings(
        index=(index.layout.root,), student=str(student_folder), out=tmp_path / "run", seed=4, batch_size=8, epochs=2,
        device="cpu", hardness=3, objective=LossSettings(loss="unguided", negatives=0, mining=mining),
    )  # fmt: skip
    train_student(settings)
    hard = HardNegatives(index, mining, None, 4)
    for hard.epoch in (0, 1):
        plan = plan_of_index(index, np.arange(len(index)), PlanSettings(8, seed=4, hardness=3), hard.epoch)
        batches += [np.column_stack([batch, hard.draw(batch)[0]]) for batch in plan]
    assert len(batches) == len(batches_of_run)
    for batch, expected in zip(batches_of_run, batches, strict=True):
        assert np.array_equal(batch, expected)
