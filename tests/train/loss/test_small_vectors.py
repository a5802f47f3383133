"""The loss with an index of int8 vectors of fewer dimensions than the guide gives."""

from __future__ import annotations

import numpy as np
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss

from tests.conftest import build_test_index, random_pairs


def test_a_trainer_takes_an_int8_index_of_fewer_dimensions(tmp_path, guide_folder, student_folder):
    rows = random_pairs(60, seed=70, negatives=1)
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder, vector_dtype="int8", dim=8))
    student = load_model(student_folder)
    assert index.vectors(np.arange(4)).shape == (4, 8)
    loss = GuidedContrastiveLoss(student, index, temperature=0.05, judge="neighborhood")
    batch = index.to_dataset()[:12]
    features = [student.preprocess(batch[name]) for name in ("anchor", "positive", "negative_1")]
    value = loss(features, torch.tensor(batch["label"]))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(each.grad).all() for each in student.parameters() if each.grad is not None)
