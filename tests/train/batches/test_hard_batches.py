"""Hard batches: neighbours as a loop finds them, walks that hold each pair once, closer than random ones."""

from __future__ import annotations

import numpy as np
import pytest
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.batches import collators
from gistcache.train.batches.hard_batches import WIDTH, Nearby, in_walks, nearby_pairs
from gistcache.train.batches.hard_negatives import HardNegatives
from gistcache.train.batches.sampler import plan_of_index
from gistcache.train.run.run import train_student
from gistcache.train.settings import HardNegativeSettings, LossSettings, TrainSettings


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def test_nearby_pairs_are_those_whose_positive_is_a_stored_neighbour(index):
    labels = np.random.default_rng(0).permutation(120)[:90]
    found = nearby_pairs(index, labels, 3).rows
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
        expected = [other for other in expected if anchors[other] != anchors[row]][:WIDTH]
        assert [other for other in found[row].tolist() if other >= 0] == expected


def test_walks_go_from_neighbour_to_neighbour_and_hold_each_pair_once():
    ring = np.stack([(np.arange(40) + 1) % 40, (np.arange(40) - 1) % 40], axis=1).astype(np.int32)
    pairs = np.arange(40)
    order = in_walks(pairs, Nearby(ring, 7), np.random.default_rng(0))
    assert sorted(order.tolist()) == pairs.tolist()
    steps = np.abs(np.diff(order))
    assert (np.minimum(steps, 40 - steps) <= 8).mean() > 0.8
    alone = in_walks(pairs, Nearby(ring, 0), np.random.default_rng(0))
    steps = np.abs(np.diff(alone))
    assert (np.minimum(steps, 40 - steps) <= 8).mean() < 0.6


def closeness(index, plan):
    """How many pairs of its batch are a pair's neighbours."""
    rows = nearby_pairs(index, np.arange(len(index)), 0).rows
    return sum(len(set(rows[pair]) & set(batch)) for batch in plan.tolist() for pair in batch) / plan.size


def test_neighbours_stand_together_and_no_text_stands_twice(index):
    labels = np.arange(len(index))
    plans = [plan_of_index(index, labels, 8, seed=1, epoch=0, negatives=0, hardness=h) for h in (0, 1, 3, 7)]
    found = [closeness(index, plan) for plan in plans]
    assert min(found[1:]) > 1.4 * found[0]
    for plan in plans:
        assert len(np.unique(plan)) == plan.size >= 0.8 * len(labels)
        for batch in plan:
            ids = index.pairs(batch, 0)
            texts = [set(index.content_ids(np.array([a, p])).tolist()) - {-1} for a, p, _ in zip(*ids, strict=True)]
            assert sum(map(len, texts)) == len(set.union(*texts))
    again = plan_of_index(index, labels, 8, seed=1, epoch=0, negatives=0, hardness=3)
    assert np.array_equal(again, plans[2])
    other = plan_of_index(index, labels, 8, seed=1, epoch=1, negatives=0, hardness=3)
    assert not np.array_equal(other, plans[2])


def test_a_run_trains_on_this_plan_and_draws_negatives_anew_each_epoch(tmp_path, index, student_folder, monkeypatch):
    seen = []

    class Watched(collators.BatchColumns):
        def of(self, labels):
            label, columns = super().of(labels)
            seen.append(np.array([row[:, 0] for row in label]))
            return label, columns

    monkeypatch.setattr("gistcache.train.run.trainer.BatchColumns", Watched)
    mining, batches = HardNegativeSettings(hard_negatives=2), []
    settings = TrainSettings(
        index=(index.layout.root,), student=str(student_folder), out=tmp_path / "run", seed=4, batch_size=8, epochs=2,
        device="cpu", hardness=3, objective=LossSettings(loss="unguided", negatives=0, mining=mining),
    )  # fmt: skip
    train_student(settings)
    hard = HardNegatives(index, mining, None, 4)
    for hard.epoch in (0, 1):
        plan = plan_of_index(index, np.arange(len(index)), 8, seed=4, epoch=hard.epoch, negatives=0, hardness=3)
        batches += [np.column_stack([batch, hard.take(batch)]) for batch in plan]
    assert len(batches) == len(seen)
    for batch, expected in zip(seen, batches, strict=True):
        assert np.array_equal(batch, expected)
