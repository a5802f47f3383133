"""Terms that learn from the guide against loops over rows and candidates, and the map that the regression trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import Blocks, PairVectors, similarities
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.sampling import evenly_spread
from gistcache.train.loss import distillation
from gistcache.train.loss.distillation import (
    RIDGE,
    distillation_terms,
    fitted_map,
    guide_kl,
    margin_mse,
    regression,
    ridge,
)
from gistcache.train.run.run import train_student
from gistcache.train.settings import DistillationSettings, LossSettings, TrainSettings
from scipy.special import log_softmax
from torch.nn.functional import cosine_similarity

PAIRS, WIDTH = 6, 2
REPEATED = torch.arange(WIDTH * PAIRS) == 9  # the second negative of pair 3 is in the batch twice


def unit(random, rows, dim):
    vectors = random.standard_normal((rows, dim))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def batch():
    """Student, guide, scores, excluded candidates of six pairs.

    They have two negatives each, one of them missing; pair 1 knows positive 4.
    """
    random = np.random.default_rng(0)
    student, guide = (
        PairVectors(*(unit(random, rows, dim) for rows in (PAIRS, PAIRS, WIDTH * PAIRS))) for dim in (8, 12)
    )
    rows = torch.arange(PAIRS)
    scores = similarities(student, rows, contrast_anchors=True, contrast_positives=True)
    excluded = scores.map(lambda block: torch.zeros_like(block, dtype=torch.bool))
    excluded.an[:, 7] = True  # the second negative of pair 1
    excluded.ap[1, 4] = True
    return student, guide, scores, excluded


def kl_of(batch, guide_temperature, student_temperature):
    student, guide, _, excluded = batch
    total = 0.0
    for i in range(PAIRS):
        ours, theirs = [], []
        for candidates, masked in (("positives", excluded.ap), ("negatives", excluded.an | REPEATED)):
            for c in range(len(getattr(student, candidates))):
                if not masked[i, c] or (candidates == "positives" and c == i):
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
    student, guide, scores, excluded = batch
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
    assert float(distillation_terms(terms, rows, student, guide, scores, excluded, REPEATED, linear)) == pytest.approx(
        expected
    )
    by_row = 0.0
    for row in rows.split(1):
        part = Blocks(*(block[row] for block in scores)), Blocks(*(block[row] for block in excluded))
        by_row += float(distillation_terms(terms, row, student, guide, *part, REPEATED, linear))
    assert by_row == pytest.approx(expected)
    assert float(distillation_terms(DistillationSettings(), rows, student, guide, scores, excluded, REPEATED)) == 0.0


def test_each_term_is_zero_with_a_zero_gradient_where_the_student_agrees():
    random = np.random.default_rng(2)
    scores = torch.from_numpy(random.standard_normal((4, 7))).requires_grad_()
    masked = torch.from_numpy(random.random((4, 7)) < 0.3)
    masked[:, 0] = False
    present = ~masked[:, 1:]
    vectors = unit(random, 4, 7).requires_grad_()
    for value, inputs in (
        (guide_kl(scores, scores.detach(), masked), scores),
        (margin_mse(scores, scores.detach() + 5, present), scores),
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


def test_ridge_is_least_squares_with_rows_that_pull_to_zero():
    random = np.random.default_rng(0)
    student, guide = (random.standard_normal((50, width)) for width in (6, 9))
    strength = RIDGE * (student**2).sum() / 6
    rows = np.vstack([student, np.sqrt(strength) * np.eye(6)]), np.vstack([guide, np.zeros((6, 9))])
    expected = np.linalg.lstsq(*rows, rcond=None)[0].T
    assert np.allclose(ridge(torch.from_numpy(student), torch.from_numpy(guide)), expected)


def test_the_map_takes_a_student_near_the_guide_and_is_the_same_each_time(small_index, student_folder, monkeypatch):
    monkeypatch.setattr(distillation, "SAMPLED_PAIRS", 60)
    index, student = GuideIndex.open(small_index), load_model(student_folder).train()
    torch.manual_seed(1)
    fitted = fitted_map(student, index).weight.detach()
    assert student.training
    torch.manual_seed(2)
    assert torch.equal(fitted, fitted_map(student.eval(), index).weight)
    unseen = np.setdiff1d(np.arange(len(index)), evenly_spread(len(index), 60))
    ids, texts = index.pairs(unseen, 0), index.to_dataset(0).select(unseen)["anchor"][:]
    vectors = torch.from_numpy(index.vectors(ids.anchors)).float()
    embeddings = student.encode(texts, normalize_embeddings=True, convert_to_tensor=True)
    assert (
        cosine_similarity(embeddings @ fitted.T, vectors).mean()
        > cosine_similarity(embeddings @ torch.roll(fitted, 1, 0).T, vectors).mean() + 0.1
    )


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
