"""Counts of masked candidates against a loop over them, and in the logs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.loss.statistics import MaskCounts
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

PAIRS = 12


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def counted(index, student_folder, wrap=None, **settings):
    student = load_model(student_folder).eval()
    loss = GuidedContrastiveLoss(student, index, temperature=0.05, **settings)
    rows = index.to_dataset(1)[:PAIRS]
    features = [student.preprocess(rows[name]) for name in ("anchor", "positive", "negative_1")]
    (wrap(student, loss) if wrap else loss)(features, torch.tensor(rows["label"]))
    return loss.statistics.counts()


def test_means_are_those_of_a_loop_over_rows_and_candidates(index, student_folder):
    ids = index.pairs(np.arange(PAIRS), 1)
    anchors, positives, negatives = (
        index.vectors(each).astype(np.float64) for each in (ids.anchors, ids.positives, ids.negatives[:, 0])
    )
    content = index.content_ids(np.stack([ids.anchors, ids.positives, ids.negatives[:, 0]]))
    known, owner = index.known_positives(np.arange(PAIRS))
    masked, candidates, thresholds = 0, 0, []
    for i in range(PAIRS):
        own = {content[0, i], content[1, i], *known[owner == i]}
        threshold = anchors[i] @ positives[i] - 0.03
        thresholds.append(threshold)
        pairings = [(anchors[i] @ positives[j], content[1, j]) for j in range(PAIRS) if j != i]
        pairings += [(anchors[i] @ anchors[j], content[0, j]) for j in range(PAIRS) if j != i]
        pairings += [(positives[i] @ positives[j], content[1, j]) for j in range(PAIRS) if j != i]
        seen = set(content[1])
        for j in range(PAIRS):
            if content[2, j] not in seen:
                pairings.append((anchors[i] @ negatives[j], content[2, j]))
            seen.add(content[2, j])
        for score, text in pairings:
            if text in own:
                continue
            candidates += 1
            masked += score > threshold
    counts = counted(index, student_folder, margin=0.03)
    assert counts[:3] == (masked, candidates, PAIRS)
    means = counts.means()
    assert 0 < means["removed_share"] == masked / candidates
    assert means["effective_negatives"] == pytest.approx((candidates - masked) / PAIRS)
    assert means["mean_threshold"] == pytest.approx(np.mean(thresholds), abs=1e-6)


def test_the_other_judges_threshold_is_a_constant(index, student_folder):
    means = counted(index, student_folder, judge="neighborhood", judge_threshold=0.25).means()
    assert means["mean_threshold"] == pytest.approx(0.25, abs=1e-5)


def test_matryoshka_counts_every_dimension_and_changes_no_mean(index, student_folder):
    once = counted(index, student_folder)
    twice = counted(index, student_folder, lambda student, loss: MatryoshkaLoss(student, loss, [16, 8]))
    assert twice.rows == 2 * once.rows
    assert twice.means() == once.means()


def test_unguided_training_has_no_means(index, student_folder):
    assert counted(index, student_folder, loss="unguided").means() == {}


def test_tensorboard_gets_the_means_of_every_report(tmp_path, small_index, student_folder, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    settings = TrainSettings(
        index=(small_index,),
        student=str(student_folder),
        out=tmp_path / "run",
        batch_size=16,
        device="cpu",
        max_steps=4,
        logging_steps=2,
        report_to=("tensorboard",),
    )
    log = train_student(settings)["log"]
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    for name in ("removed_share", "effective_negatives", "mean_threshold"):
        logged = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        assert logged == [(entry["step"], pytest.approx(entry[name])) for entry in log if name in entry]
        assert [step for step, _ in logged] == [2, 4]


def test_counts_go_on_from_a_checkpoint_and_means_are_those_since_the_last_call(index, student_folder):
    first = counted(index, student_folder)
    student = load_model(student_folder).eval()
    loss = GuidedContrastiveLoss(student, index, temperature=0.05)
    loss.statistics.start_from(MaskCounts(*json.loads(json.dumps(first))))
    assert loss.statistics.recent_means() == {}
    rows = index.to_dataset(0)[PAIRS : 2 * PAIRS]
    loss([student.preprocess(rows[name]) for name in ("anchor", "positive")], torch.tensor(rows["label"]))
    both = loss.statistics.counts()
    added = both.since(first)
    assert added.rows == PAIRS
    assert added.candidates < first.candidates  # it has no negatives
    assert loss.statistics.recent_means() == {name: round(mean, 5) for name, mean in added.means().items()}
    assert both.means() != added.means()
