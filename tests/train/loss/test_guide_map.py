"""The map of the regression as training begins: ridge regression, and closer to the guide on pairs it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.sampling import evenly_spread
from gistcache.train.loss import guide_map
from gistcache.train.loss.guide_map import RIDGE, fitted_map, ridge
from torch.nn.functional import cosine_similarity


def test_ridge_is_least_squares_with_rows_that_pull_to_zero():
    random = np.random.default_rng(0)
    student, guide = (random.standard_normal((50, width)) for width in (6, 9))
    strength = RIDGE * (student**2).sum() / 6
    rows = np.vstack([student, np.sqrt(strength) * np.eye(6)]), np.vstack([guide, np.zeros((6, 9))])
    expected = np.linalg.lstsq(*rows, rcond=None)[0].T
    assert np.allclose(ridge(torch.from_numpy(student), torch.from_numpy(guide)), expected)


def test_the_map_takes_a_student_near_the_guide_and_is_the_same_each_time(small_index, student_folder, monkeypatch):
    monkeypatch.setattr(guide_map, "SAMPLED_PAIRS", 60)
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
