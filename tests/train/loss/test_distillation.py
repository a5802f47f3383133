"""The terms that learn from scores, against loops over rows and cells, and the map of the regression in a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import Blocks, PairVectors, self_cells, similarities
from gistcache.shared.errors import SettingsError
from gistcache.train.loss.distillation import guide_kl, margin_mse, regression, score_terms
from gistcache.train.run.run import train_student
from gistcache.train.settings import DistillationSettings, LossSettings, TrainSettings
from scipy.special import log_softmax

PAIRS, WIDTH = 6, 2
AGAIN = torch.arange(WIDTH * PAIRS) == 9  # the second negative of pair 3 stands in the batch before


def unit(random, rows, dim):
    vectors = random.standard_normal((rows, dim))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def batch():
    """Student, guide, own cells: six pairs with two negatives each, one of them missing; pair 1 knows positive 4."""
    random = np.random.default_rng(0)
    student, guide = (
        PairVectors(*(unit(random, rows, dim) for rows in (PAIRS, PAIRS, WIDTH * PAIRS))) for dim in (8, 12)
    )
    rows = torch.arange(PAIRS)
    scores = similarities(student, rows, contrast_anchors=True, contrast_positives=True)
    own = self_cells(rows, scores)
    own.an[:, 7] = True  # the second negative of pair 1
    own.ap[1, 4] = True
    return student, guide, scores, own


def kl_of(batch, guide_temperature, student_temperature):
    student, guide, _, own = batch
    total = 0.0
    for i in range(PAIRS):
        ours, theirs = [], []
        for candidates, leaves in (("positives", own.ap), ("negatives", own.an | AGAIN)):
            for c in range(len(getattr(student, candidates))):
                if not leaves[i, c] or (candidates == "positives" and c == i):
                    ours.append(float(student.anchors[i] @ getattr(student, candidates)[c]) / student_temperature)
                    theirs.append(float(guide.anchors[i] @ getattr(guide, candidates)[c]) / guide_temperature)
        log_q, log_p = log_softmax(ours), log_softmax(theirs)
        total += float(np.sum(np.exp(log_p) * (log_p - log_q)))
    return total


def margins_of(batch):
    student, guide, _, _ = batch
    total = 0.0
    for i in range(PAIRS):
        errors = []
        for k in range(WIDTH):
            place = k * PAIRS + i
            if place != 7:
                margins = [
                    float(v.anchors[i] @ v.positives[i] - v.anchors[i] @ v.negatives[place]) for v in (student, guide)
                ]
                errors.append((margins[0] - margins[1]) ** 2)
        total += np.mean(errors)
    return total


def regression_of(batch, linear):
    student, guide, _, _ = batch
    total = 0.0
    for side in ("anchors", "positives"):
        for ours, theirs in zip(getattr(student, side), getattr(guide, side), strict=True):
            mapped = linear @ ours
            total += 1 - float(mapped @ theirs / mapped.norm() / theirs.norm())
    return total


def test_weighted_terms_are_what_loops_give_also_row_by_row(batch):
    student, guide, scores, own = batch
    linear = unit(np.random.default_rng(1), 12, 8)
    terms = DistillationSettings(
        kl_weight=0.5,
        kl_guide_temperature=0.2,
        kl_student_temperature=0.3,
        margin_mse_weight=2.0,
        regression_weight=3.0,
    )
    expected = 0.5 * kl_of(batch, 0.2, 0.3) + 2 * margins_of(batch) + 3 * regression_of(batch, linear)
    rows = torch.arange(PAIRS)
    assert float(score_terms(terms, rows, student, guide, scores, own, AGAIN, linear)) == pytest.approx(expected)
    by_row = 0.0
    for row in rows.split(1):
        part = Blocks(*(block[row] for block in scores)), Blocks(*(block[row] for block in own))
        by_row += float(score_terms(terms, row, student, guide, *part, AGAIN, linear))
    assert by_row == pytest.approx(expected)
    assert float(score_terms(DistillationSettings(), rows, student, guide, scores, own, AGAIN)) == 0.0


def test_each_term_is_zero_with_a_zero_gradient_where_the_student_agrees():
    random = np.random.default_rng(2)
    scores = torch.from_numpy(random.standard_normal((4, 7))).requires_grad_()
    leaves = torch.from_numpy(random.random((4, 7)) < 0.3)
    leaves[:, 0] = False
    held = ~leaves[:, 1:]
    vectors = unit(random, 4, 7).requires_grad_()
    for value, inputs in (
        (guide_kl(scores, scores.detach(), leaves), scores),
        (margin_mse(scores, scores.detach() + 5, held), scores),
        (regression(vectors, vectors.detach(), torch.eye(7, dtype=torch.float64)), vectors),
    ):
        assert float(value.detach()) == pytest.approx(0, abs=1e-12)
        (gradient,) = torch.autograd.grad(value, inputs)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() < 1e-10


def test_terms_refuse_what_they_are_not():
    with pytest.raises(SettingsError, match="--kl-weight"):
        DistillationSettings(kl_weight=-1)
    with pytest.raises(SettingsError, match="--kl-guide-temperature"):
        DistillationSettings(kl_guide_temperature=0)


def run(index, student, out, objective, **changes):
    fixed = {"batch_size": 8, "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3, "device": "cpu"}
    return train_student(
        TrainSettings(index=(index,), student=student, out=out, objective=objective, **fixed | changes)
    )


def test_margins_to_no_negatives_are_refused(tmp_path, small_index, student_folder):
    objective = LossSettings(terms=DistillationSettings(margin_mse_weight=1.0), negatives=0)
    with pytest.raises(SettingsError, match="there are none") as caught:
        run(small_index, str(student_folder), tmp_path / "out", objective)
    assert caught.value.where == "--margin-mse-weight"
    with pytest.raises(SettingsError, match="No pair of the index has more than 3") as caught:
        run(small_index, str(student_folder), tmp_path / "out", LossSettings(negatives=4))
    assert caught.value.where == "--negatives 4"
