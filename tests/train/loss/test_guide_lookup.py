"""The hard negatives that a collator adds, from the batch to the loss, and the settings of the loss by keyword."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.settings import with_fields
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.loss.guide_lookup import GUIDE_BATCH, GuideBatch
from gistcache.train.settings import LossSettings
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

PAIRS = 16


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


@pytest.fixture(scope="module")
def student(student_folder):
    return load_model(student_folder).eval()


def features_of(student, rows):
    return [student.preprocess(rows[name]) for name in rows if name != "label"]


def value_and_gradient(student, loss, features, labels):
    student.zero_grad()
    value = loss(features, labels)
    value.backward()
    return value.item(), torch.cat([p.grad.ravel() for p in student.parameters() if p.grad is not None]).clone()


@pytest.mark.parametrize("tokens", [None, 60])
@pytest.mark.parametrize("matryoshka", [False, True])
def test_hard_negatives_are_judged_as_negatives_of_the_data_are(index, student, tokens, matryoshka):
    rows = index.to_dataset(2)[:PAIRS]
    labels = torch.tensor(rows["label"])
    results = []
    for hard in (0, 1, 2):
        loss = GuidedContrastiveLoss(student, index, margin=0.05, mini_batch_num_tokens=tokens)
        wrapped = MatryoshkaLoss(student, loss, [16, 8]) if matryoshka else loss
        features = features_of(student, rows)
        ids = torch.from_numpy(index.pairs(labels.numpy(), 2).negatives[:, 2 - hard :])
        if hard:
            features[0][GUIDE_BATCH] = GuideBatch(ids)
        results.append(value_and_gradient(student, wrapped, features, labels))
        assert (GUIDE_BATCH in features[0]) == bool(hard)
        assert 0 < loss.statistics.counts().masked < loss.statistics.counts().candidates
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-6)
        assert torch.allclose(gradient, results[0][1], atol=1e-6)


def test_missing_hard_negatives_take_no_part(index, student):
    rows = index.to_dataset(1)[:PAIRS]
    labels = torch.tensor(rows["label"])
    filled = {**rows, "negative_2": rows["positive"]}
    features = features_of(student, filled)
    features[0][GUIDE_BATCH] = GuideBatch(torch.full((PAIRS, 1), -1))
    loss = GuidedContrastiveLoss(student, index)
    expected = loss(features_of(student, rows), labels).item()
    assert loss(features, labels).item() == pytest.approx(expected, rel=1e-6)


def test_the_batch_is_moved_and_pickled_as_a_tensor_is():
    batch = GuideBatch(torch.from_numpy(np.arange(6).reshape(3, 2)))
    collated = {"anchor_input_ids": torch.zeros(3, 4), f"anchor_{GUIDE_BATCH}": batch}
    moved = send_to_device(collated, "meta", non_blocking=True)[f"anchor_{GUIDE_BATCH}"]
    assert moved.hard_negatives.device.type == "meta"
    copy = pickle.loads(pickle.dumps(batch))
    assert torch.equal(copy.hard_negatives, batch.hard_negatives)


def test_settings_by_object_and_by_keyword_are_the_same(index, student):
    assert GuidedContrastiveLoss(student, index).settings == LossSettings()
    by_keyword = GuidedContrastiveLoss(student, index, temperature=0.1, kl_weight=0.5, hard_negatives=2)
    nested = with_fields(LossSettings(temperature=0.1), kl_weight=0.5, hard_negatives=2)
    assert by_keyword.settings == nested
    assert (nested.terms.kl_weight, nested.mining.hard_negatives) == (0.5, 2)
    changed = GuidedContrastiveLoss(student, index, nested, temperature=0.2).settings
    assert (changed.temperature, changed.terms.kl_weight) == (0.2, 0.5)
    assert by_keyword.get_config_dict()["kl_weight"] == 0.5
    with pytest.raises(TypeError, match="softness"):
        GuidedContrastiveLoss(student, index, softness=0.1)
    with pytest.raises(SettingsError, match="out of range"):
        GuidedContrastiveLoss(student, index, temperature=0)
    with pytest.raises(SettingsError, match="no loss 'guidet'"):
        GuidedContrastiveLoss(student, index, loss="guidet")
