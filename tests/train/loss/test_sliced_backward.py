"""Gradients in pieces against those of one pass over everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss, in_row_slices
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

PAIRS = 24


@pytest.fixture(scope="module")
def batch(small_index):
    """An open index and the rows of a batch."""
    index = GuideIndex.open(small_index)
    return index, index.to_dataset().select(range(PAIRS))


def features_of(student, rows, names=("anchor", "positive", "negative_1")):
    return [student.preprocess(list(rows[name])) for name in names]


def tokens_in(features):
    return int(features.get("attention_mask", torch.ones_like(features["input_ids"])).sum())


def value_and_gradient(student, loss, rows, upstream=1.0):
    student.zero_grad()
    torch.manual_seed(7)
    value = loss(features_of(student, rows), torch.tensor(rows["label"][:]))
    (value * upstream).backward()
    return value.item(), torch.cat([p.grad.ravel() for p in student.parameters() if p.grad is not None]).clone()


def test_row_slices_sum_to_the_whole():
    torch.manual_seed(0)
    left, right = torch.randn(10, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)

    def loss(rows, left, right):
        return (left[rows] @ right.T).logsumexp(1).sum()

    whole = loss(torch.arange(10), left, right)
    expected = torch.autograd.grad(3 * whole, [left, right])
    sliced = in_row_slices([left, right], torch.arange(10), 3, loss)
    assert torch.allclose(sliced, whole)
    for ours, theirs in zip(torch.autograd.grad(3 * sliced, [left, right]), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(in_row_slices([left, right], torch.arange(10), 3, loss), whole)


@pytest.mark.parametrize("form", ["packed", "buckets"])
@pytest.mark.parametrize("upstream", [1.0, 0.25])
def test_gradient_caching_and_row_slices_equal_the_plain_loss(batch, student_folder, monkeypatch, form, upstream):
    index, rows = batch
    student = load_model(student_folder).eval()
    if form == "buckets":
        student[0].model.set_attn_implementation("eager")
    plain = GuidedContrastiveLoss(student, index, temperature=0.05)
    expected, gradient = value_and_gradient(student, plain, rows, upstream)
    monkeypatch.setattr("gistcache.train.loss.guided_loss.SLICE_CANDIDATES", 5 * 4 * PAIRS)
    cached = GuidedContrastiveLoss(student, index, temperature=0.05, mini_batch_num_tokens=40)
    passes = []
    hook = student.register_forward_pre_hook(lambda _, inputs: passes.append(tokens_in(inputs[0])))
    value, again = value_and_gradient(student, cached, rows, upstream)
    hook.remove()
    assert len(passes) > 20
    assert max(passes) <= 40
    assert value == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(again, gradient, atol=1e-5)
    assert cached.statistics.counts() == pytest.approx(plain.statistics.counts())


def test_the_second_pass_meets_the_dropout_of_the_first(batch, student_folder):
    """With dropout, the gradient is that of the value only if both passes drop the same values: a finite difference."""
    index, rows = batch
    student = load_model(student_folder).train()
    loss = GuidedContrastiveLoss(student, index, temperature=0.5, mini_batch_num_tokens=60)
    _, gradient = value_and_gradient(student, loss, rows)
    trained = [parameter for parameter in student.parameters() if parameter.grad is not None]
    step = 1e-3 / gradient.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, part in zip(trained, gradient.split([p.numel() for p in trained]), strict=True):
                parameter += sign * step * part.view_as(parameter)
            torch.manual_seed(7)
            values.append(_value(student, index, rows))
            for parameter, part in zip(trained, gradient.split([p.numel() for p in trained]), strict=True):
                parameter -= sign * step * part.view_as(parameter)
    slope = (values[0] - values[1]) / (2e-3)
    assert slope == pytest.approx(gradient.norm().item(), rel=0.05)


def _value(student, index, rows):
    """The loss with gradient caching's own mini-batches, value only."""
    loss = GuidedContrastiveLoss(student, index, temperature=0.5, mini_batch_num_tokens=60)
    with torch.enable_grad():
        return loss(features_of(student, rows), torch.tensor(rows["label"][:])).item()


def test_matryoshka_wraps_the_cached_loss_as_it_wraps_the_plain_one(batch, student_folder):
    index, rows = batch
    student = load_model(student_folder).eval()
    results = []
    for tokens in (None, 60):
        loss = GuidedContrastiveLoss(student, index, temperature=0.05, mini_batch_num_tokens=tokens)
        wrapped = MatryoshkaLoss(student, loss, [16, 8])
        results.append(value_and_gradient(student, wrapped, rows))
    (value, gradient), (cached_value, cached_gradient) = results
    assert cached_value == pytest.approx(value, abs=1e-5)
    assert torch.allclose(cached_gradient, gradient, atol=1e-5)


def test_a_static_student_is_cached_whole(batch, student_folder):
    index, rows = batch
    tokenizer = load_model(student_folder).tokenizer
    torch.manual_seed(0)
    student = SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)], device="cpu")
    results = [
        value_and_gradient(student, GuidedContrastiveLoss(student, index, mini_batch_num_tokens=tokens), rows)
        for tokens in (None, 10)
    ]
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)


def test_half_precision_training_leaves_the_guides_judgement_alone(batch, student_folder):
    index, rows = batch
    student = load_model(student_folder).eval()
    counts = []
    for autocast in (False, True):
        loss = GuidedContrastiveLoss(student, index, mini_batch_num_tokens=60)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = loss(features_of(student, rows), torch.tensor(rows["label"][:]))
        value.backward()
        counts.append(loss.statistics.counts())
    assert counts[0] == counts[1]
    assert np.isfinite(value.item())
