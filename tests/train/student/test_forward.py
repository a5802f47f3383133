"""Length buckets against one padded pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.models.lengths import pass_tokens, row_lengths, split_by_budget, split_by_cost, take_rows
from gistcache.shared.models.load import load_model
from gistcache.train.student.forward import embed_columns
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from tests.conftest import random_texts


def gradient(model, vectors, weights):
    model.zero_grad()
    loss = sum((column * weight).sum() for column, weight in zip(vectors, weights, strict=True))
    loss.backward()
    return loss.item(), torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]).clone()


@pytest.mark.parametrize("form", ["packed", "buckets"])
@pytest.mark.parametrize("prompt", [None, "red: "])
def test_a_pass_without_padding_equals_one_padded_pass(student_folder, prompt, form):
    model = load_model(student_folder).eval()
    if form == "buckets":
        model[0].model.set_attn_implementation("eager")
    texts = random_texts(60, seed=4)
    columns = [texts[:30], texts[30:]]
    torch.manual_seed(0)
    weights = [torch.randn(30, 16) for _ in columns]

    def features():
        # A prompt on one column only: what is not a tensor then differs between the columns.
        return [model.preprocess(column, prompt=prompt if k else None) for k, column in enumerate(columns)]

    passes = []
    hook = model.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0]["input_ids"].shape))
    bucketed = embed_columns(model, features())
    hook.remove()
    if form == "packed":
        assert {shape[0] for shape in passes} == {1}
    else:
        assert len({shape[1] for shape in passes}) > 1
    padded = [model(column)["sentence_embedding"] for column in features()]
    (value, ours), (expected, theirs) = (gradient(model, vectors, weights) for vectors in (bucketed, padded))
    assert value == pytest.approx(expected, abs=1e-4)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)
    for vectors, wanted in zip(bucketed, padded, strict=True):
        assert torch.allclose(vectors, wanted, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_cut_to_their_own_tokens_on_either_side(student_folder, side):
    model = load_model(student_folder)
    model.tokenizer.padding_side = side
    texts = random_texts(20, seed=8)
    features = model.preprocess(texts)
    lengths = row_lengths(features)
    rows = np.argsort(lengths)[3:6]
    taken = take_rows(features, rows, int(lengths[rows].max()))
    assert taken["input_ids"].shape == (3, lengths[rows].max())
    for ids, mask, row in zip(taken["input_ids"], taken["attention_mask"].bool(), rows, strict=True):
        assert ids[mask].tolist() == model.tokenizer(texts[row])["input_ids"]


def test_the_model_is_left_as_it_was(student_folder):
    model = load_model(student_folder)
    features = model.preprocess(random_texts(5, seed=3))
    embed_columns(model, [features])
    assert model[0].model.config._attn_implementation == "sdpa"
    assert features["input_ids"].shape == features["attention_mask"].shape


def test_a_row_does_not_depend_on_its_batch(student_folder):
    model = load_model(student_folder).eval()
    texts = random_texts(40, seed=5)
    together = embed_columns(model, [model.preprocess(texts)])[0]
    alone = torch.cat([model(model.preprocess([text]))["sentence_embedding"] for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)


def test_static_students_go_through_as_they_are(student_folder):
    tokenizer = load_model(student_folder).tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)], device="cpu")
    columns = [random_texts(5, seed=6), random_texts(5, seed=7)]
    ours = embed_columns(model, [model.preprocess(column) for column in columns])
    for vectors, column in zip(ours, columns, strict=True):
        assert np.allclose(vectors.detach().numpy(), model.encode(column), atol=1e-6)


def brute_force_cost(lengths, pass_cost):
    """The best cost over every way to cut the sorted lengths."""
    ordered = sorted(lengths)
    best = [0.0] + [float("inf")] * len(ordered)
    for end in range(1, len(ordered) + 1):
        best[end] = min(best[start] + (end - start) * ordered[end - 1] + pass_cost for start in range(end))
    return best[-1]


@pytest.mark.parametrize("pass_cost", [1, 40, 10_000])
def test_buckets_cost_the_least_there_can_be(pass_cost):
    lengths = np.random.default_rng(0).integers(2, 60, size=50)
    buckets = split_by_cost(lengths, pass_cost)
    assert sorted(np.concatenate(buckets).tolist()) == list(range(50))
    cost = sum(len(bucket) * lengths[bucket].max() + pass_cost for bucket in buckets)
    assert cost == brute_force_cost(lengths.tolist(), pass_cost)


def test_an_accelerator_is_given_fewer_and_larger_passes():
    lengths = np.random.default_rng(2).integers(2, 60, size=128)
    on_cpu, on_card = (split_by_cost(lengths, pass_tokens(device, 384)) for device in ("cpu", "cuda"))
    assert len(on_cpu) > len(on_card) == 1
    assert pass_tokens("cuda", 768, half=True) * 4 == pass_tokens("cuda", 384, half=True)


def test_budget_batches_hold_every_row_once_and_keep_the_budget():
    lengths = np.random.default_rng(1).integers(1, 50, size=200)
    batches = split_by_budget(lengths, 128)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(len(batch) * lengths[batch].max() <= 128 for batch in batches)
