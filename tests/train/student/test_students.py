"""Kinds of students: static, pruned, with adapters, Matryoshka; each through `train`, and a plain model afterwards."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from gistcache.shared.errors import ModelError, SettingsError
from gistcache.shared.evaluation.retrieval import RetrievalSet
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train.batches.token_cache import TokenCache
from gistcache.train.command import costs
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings
from gistcache.train.student.adapters import add_adapters, merge_adapters
from gistcache.train.student.forward import embed_columns
from gistcache.train.student.load import load_student
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from tests.conftest import random_pairs, random_texts, write_jsonl

TEXTS = random_texts(40, seed=5)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return str(write_jsonl(tmp_path_factory.mktemp("held") / "held.jsonl", random_pairs(20, seed=21)))


@pytest.fixture
def trained(small_index, student_folder, tmp_path):
    """Train the student of the tests, six steps, and give its folder and metrics."""

    def train(name, **changes):
        fixed = {
            "batch_size": 16,
            "learning_rate": 1e-2,
            "device": "cpu",
            "max_steps": 6,
            "student": str(student_folder),
        }
        settings = TrainSettings(index=small_index, out=tmp_path / name, **(fixed | changes))
        return tmp_path / name, train_student(settings)

    return train


def given_table(student_folder, folder, name="embedding.weight", rows=None):
    """A folder with a tokenizer and a table of 6 dimensions."""
    folder.mkdir()
    shutil.copy(student_folder / "tokenizer.json", folder)
    rows = rows or load_model(student_folder).tokenizer.backend_tokenizer.get_vocab_size()
    table = torch.randn(rows, 6, generator=torch.Generator().manual_seed(4))
    save_file({name: table}, folder / "model.safetensors")
    return table


def test_a_static_student_averages_the_models_own_token_embeddings(student_folder):
    student = load_student(str(student_folder), static=True)
    whole = load_model(student_folder)
    table = whole.transformers_model.get_input_embeddings().weight
    for text, vector in zip(TEXTS, student.encode(TEXTS), strict=True):
        mean = table[whole.tokenizer(text, add_special_tokens=False)["input_ids"]].mean(0)
        assert np.allclose(vector, (mean / mean.norm()).detach(), atol=1e-6)
    assert student.encode(["red " * 40 + "dog"])[0] == pytest.approx(student.encode(["dog" + " red" * 40])[0], abs=1e-6)


@pytest.mark.parametrize("name", ["embedding.weight", "embeddings"])
def test_a_given_table_is_a_tokenizer_and_a_tensor(student_folder, tmp_path, name):
    table = given_table(student_folder, tmp_path / "table", name)
    rules = Tokenizer.from_file(str(tmp_path / "table" / "tokenizer.json"))
    rules.enable_truncation(4)  # a transformer's limit, which a table has not
    rules.save(str(tmp_path / "table" / "tokenizer.json"))
    student = load_student(str(tmp_path / "table"), static=True)
    assert torch.equal(student[0].embedding.weight, table)
    assert student.encode(["red " * 40 + "dog"])[0] == pytest.approx(student.encode(["dog" + " red" * 40])[0], abs=1e-6)
    student.save_pretrained(str(tmp_path / "model"))
    again = load_student(str(tmp_path / "model"), static=True)  # a static model is taken as it is
    assert np.array_equal(again.encode(TEXTS), student.encode(TEXTS))
    given_table(student_folder, tmp_path / "short", name, rows=7)
    with pytest.raises(ModelError, match="7 rows"):
        load_student(str(tmp_path / "short"), static=True)
    (tmp_path / "short" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_student(str(tmp_path / "short"), static=True)
    (tmp_path / "table" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ModelError):
        load_student(str(tmp_path / "table"), static=True)


def test_a_static_student_is_trained_and_loads_plain(trained, held_out):
    out, metrics = trained("static", static=True, eval_pairs=(held_out,), save_steps=3)
    model = SentenceTransformer(str(out), device="cpu")
    assert isinstance(model[0], StaticEmbedding)
    assert RetrievalSet.read([held_out]).evaluate(model) == pytest.approx(metrics["retrieval"]["student after"])
    assert metrics["parameters"] == metrics["trained_parameters"] == model[0].embedding.weight.numel()
    assert metrics["model_bytes"] == (out / "model.safetensors").stat().st_size
    assert metrics["texts_per_second"] > 0
    assert metrics["encoded"]["batch_size"] == 32
    assert f"{metrics['parameters']:,} parameters" in (out / "README.md").read_text()
    assert "texts/s (cpu, batches of 32)" in costs(metrics).plain
    (out / "metrics.json").unlink()
    shutil.rmtree(out / "checkpoints" / "checkpoint-6")
    first = load_file(out / "model.safetensors")
    trained("static", static=True, eval_pairs=(held_out,), save_steps=3, resume=True)
    assert torch.equal(load_file(out / "model.safetensors")["embedding.weight"], first["embedding.weight"])


def test_a_static_student_can_be_cut_short_and_its_tokens_are_its_own(small_index, student_folder, tmp_path):
    shutil.copytree(small_index, tmp_path / "index")
    index, prompts = GuideIndex.open(tmp_path / "index"), {"query": "", "document": ""}
    whole, cut = (load_student(str(student_folder), static=True, max_length=n) for n in (None, 2))
    text = "red dog bank river"
    assert np.allclose(cut.encode([text]), whole.encode(["red dog"]), atol=1e-6)
    caches = [TokenCache.of(index, student, prompts) for student in (whole, cut)]
    lengths = [len(cache.features(np.arange(10), "query")["input_ids"]) for cache in caches]
    assert lengths[1] == 20 < lengths[0]
    whole.save_pretrained(str(tmp_path / "model"))
    assert np.allclose(load_model(tmp_path / "model", max_length=2).encode([text]), cut.encode([text]), atol=1e-6)


def with_adapters(folder, seed=0):
    """A student whose adapters change something: fresh ones are zero."""
    student = load_student(str(folder), layers=2)
    add_adapters(student, 3, seed)
    torch.manual_seed(1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return student.eval()


def test_the_fast_path_with_adapters_is_the_plain_one(student_folder, monkeypatch):
    student = with_adapters(student_folder)
    found = []
    monkeypatch.setattr("gistcache.shared.models.onednn.onednn_pays", lambda: torch.backends.mkldnn.is_available())
    for embedded in (
        lambda: torch.cat(embed_columns(student, [student.preprocess(TEXTS[:25]), student.preprocess(TEXTS[25:])])),
        lambda: student(student.preprocess(TEXTS))["sentence_embedding"],
    ):
        student.zero_grad()
        vectors = embedded()
        (vectors[:20] @ vectors[20:].T).sigmoid().sum().backward()
        found.append(
            (vectors.detach(), {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None})
        )
    (fast, fast_gradients), (plain, plain_gradients) = found
    assert torch.allclose(fast, plain, atol=1e-5)
    assert fast_gradients.keys() == plain_gradients.keys()
    assert fast_gradients
    assert all("lora_" in name for name in fast_gradients)
    for name, gradient in fast_gradients.items():
        assert torch.allclose(gradient, plain_gradients[name], atol=1e-4, rtol=1e-4), name


def test_gradient_caching_with_adapters_gives_the_plain_gradient(small_index, student_folder):
    student, index = with_adapters(student_folder), GuideIndex.open(small_index)
    rows = index.to_dataset().select(range(24))
    features = [student.preprocess(list(rows[name])) for name in ("anchor", "positive")]
    found = []
    for tokens in (None, 60):
        student.zero_grad()
        loss = GuidedContrastiveLoss(student, index, temperature=0.1, mini_batch_num_tokens=tokens)
        loss([dict(each) for each in features], torch.arange(24)).backward()
        found.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert torch.allclose(*found, atol=1e-5)


def test_merged_adapters_leave_a_plain_model_of_the_same_vectors(student_folder, tmp_path):
    student = with_adapters(student_folder)
    vectors = student.encode(TEXTS)
    merge_adapters(student)
    student.save_pretrained(str(tmp_path / "merged"))
    again = load_model(tmp_path / "merged")
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in student.named_parameters()}
    assert not [path for path in (tmp_path / "merged").rglob("*adapter*")]
    assert np.allclose(again.encode(TEXTS), vectors, atol=1e-5)


def test_a_resumed_run_with_adapters_ends_where_an_uninterrupted_one_does(trained, student_folder, tmp_path):
    changes = {"layers": 2, "lora_rank": 2, "save_steps": 2}
    whole, metrics = trained("whole", **changes)
    shutil.copytree(whole / "checkpoints", tmp_path / "cut" / "checkpoints")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "checkpoint-6")
    cut, _ = trained("cut", **changes, resume=True)
    weights, again = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    before = load_student(str(student_folder), layers=2).transformers_model.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed == {name for name in changed if name.endswith("weight") and "LayerNorm" not in name}
    assert len(changed) == 12  # six linear layers in each of two
    assert 0 < metrics["trained_parameters"] < metrics["parameters"] == sum(each.numel() for each in before.values())


def test_the_seed_alone_determines_the_adapters(student_folder):
    def weights(seed):
        torch.manual_seed(int(np.random.default_rng().integers(1000)))
        student = load_student(str(student_folder))
        add_adapters(student, 2, seed)
        return torch.cat([p.flatten() for p in student.parameters() if p.requires_grad])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("kind", [{"layers": 2}, {"static": True}, {"lora_rank": 2}, {"mini_batch_num_tokens": 200}])
def test_matryoshka_with_each_kind_evaluates_each_dimension(trained, held_out, kind):
    out, metrics = trained("run", matryoshka=(4, 8), eval_pairs=(held_out,), **kind)
    held = RetrievalSet.read([held_out])
    retrieval = metrics["retrieval"]
    assert list(retrieval) == [
        "student before", "student after", "student after, 8 dimensions", "student after, 4 dimensions", "guide",
    ]  # fmt: skip
    for dim in (8, 4):
        model = SentenceTransformer(str(out), device="cpu", truncate_dim=dim)
        assert held.evaluate(model) == pytest.approx(retrieval[f"student after, {dim} dimensions"], abs=1e-6)
    card = (out / "README.md").read_text()
    assert "truncate_dim=4" in card
    assert "student after, 4 dimensions" in card


def test_each_cell_is_judged_alike_at_every_dimension(trained):
    _, plain = trained("plain", logging_steps=2)
    _, matryoshka = trained("matryoshka", matryoshka=(8, 4), logging_steps=2)
    assert 0 < plain["removed_share"] == matryoshka["removed_share"]
    assert matryoshka["training_loss"] > 2 * plain["training_loss"]  # a sum over three dimensions


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"static": True, "layers": 2}, "--static --layers 2"),
        ({"static": True, "lora_rank": 4}, "--static --lora-rank 4"),
        ({"lora_rank": 0}, "--lora-rank"),
        ({"matryoshka": (8, 0)}, "--matryoshka 8,0"),
        ({"matryoshka": (8, 8)}, "--matryoshka 8,8"),
        ({"matryoshka": (32,)}, "--matryoshka"),
    ],
)
def test_what_does_not_go_together_is_told(trained, changes, where):
    with pytest.raises(SettingsError) as caught:
        trained("run", **changes)
    assert caught.value.where == where
    assert caught.value.fix


def test_a_student_that_lacks_what_is_asked_for_is_told(student_folder, monkeypatch):
    static = load_student(str(student_folder), static=True)
    with pytest.raises(SettingsError, match="no layers to adapt"):
        add_adapters(static, 2, 0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match="PEFT") as caught:
        add_adapters(load_student(str(student_folder)), 2, 0)
    assert "gistcache[peft]" in caught.value.fix


def test_kinds_are_part_of_what_determines_the_weights():
    settings = TrainSettings(student="s", lora_rank=2, matryoshka=(8, 4))
    determining = json.loads(json.dumps(settings.determining()))
    assert determining["lora_rank"] == 2
    assert determining["matryoshka"] == [8, 4]
    assert determining["static"] is False
