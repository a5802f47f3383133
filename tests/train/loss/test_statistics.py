"""What is counted of the cells, against a loop over them, and that loggers are told of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
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
    return loss.cells.counts()


@pytest.mark.parametrize("softness", [0.0, 0.1])
def test_means_are_those_of_a_loop_over_rows_and_cells(index, student_folder, softness):
    ids = index.pairs(np.arange(PAIRS), 1)
    anchors, positives, negatives = (
        index.vectors(each).astype(np.float64) for each in (ids.anchors, ids.positives, ids.negatives[:, 0])
    )
    content = index.content_ids(np.stack([ids.anchors, ids.positives, ids.negatives[:, 0]]))
    known, owner = index.known_positives(np.arange(PAIRS))
    removed, candidates, weight, thresholds = 0, 0, 0.0, []
    for i in range(PAIRS):
        own = {content[0, i], content[1, i], *known[owner == i]}
        threshold = anchors[i] @ positives[i] - 0.03
        thresholds.append(threshold)
        cells = [(anchors[i] @ positives[j], content[1, j]) for j in range(PAIRS) if j != i]
        cells += [(anchors[i] @ anchors[j], content[0, j]) for j in range(PAIRS) if j != i]
        cells += [(positives[i] @ positives[j], content[1, j]) for j in range(PAIRS) if j != i]
        seen = set(content[1])
        for j in range(PAIRS):
            if content[2, j] not in seen:
                cells.append((anchors[i] @ negatives[j], content[2, j]))
            seen.add(content[2, j])
        for score, text in cells:
            if text in own:
                continue
            candidates += 1
            removed += score > threshold
            weight += 1 / (1 + np.exp((score - threshold) / softness)) if softness else score <= threshold
    counts = counted(index, student_folder, margin=0.03, judge_softness=softness)
    assert (counts.removed, counts.candidates, counts.rows) == (removed, candidates, PAIRS)
    means = counts.means()
    assert 0 < means["removed_share"] == removed / candidates
    assert means["effective_negatives"] == pytest.approx(weight / PAIRS, abs=1e-3)
    assert means["mean_threshold"] == pytest.approx(np.mean(thresholds), abs=1e-4)


def test_the_other_judges_threshold_is_a_constant(index, student_folder):
    means = counted(index, student_folder, judge="neighborhood", judge_threshold=0.25).means()
    assert means["mean_threshold"] == pytest.approx(0.25, abs=1e-5)


def test_matryoshka_counts_every_dimension_and_changes_no_mean(index, student_folder):
    once = counted(index, student_folder)
    twice = counted(index, student_folder, lambda student, loss: MatryoshkaLoss(student, loss, [16, 8]))
    assert twice.rows == 2 * once.rows
    assert twice.means() == once.means()


def test_unguided_training_has_nothing_to_tell(index, student_folder):
    assert counted(index, student_folder, guided=False).means() == {}


def test_tensorboard_holds_the_means_of_every_report(tmp_path, small_index, student_folder, monkeypatch):
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
        told = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        assert told == [(entry["step"], pytest.approx(entry[name])) for entry in log if name in entry]
        assert [step for step, _ in told] == [2, 4]
