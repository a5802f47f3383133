"""The token cache against the student's own tokenising."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.storage.lock import folder_lock
from gistcache.train.batches.collators import BatchCollator, BatchColumns
from gistcache.train.batches.token_cache import TokenCache
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

NO_PROMPTS = {"query": "", "document": ""}


@pytest.fixture
def index(small_index, tmp_path):
    """A copy of the index, so that each test's cache is its own; texts in shards of 50."""
    shutil.copytree(small_index, tmp_path / "index")
    return GuideIndex.open(tmp_path / "index")


def static_student(folder):
    tokenizer = load_model(folder).tokenizer
    torch.manual_seed(0)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)], device="cpu")


@pytest.mark.parametrize("kind", ["right", "left", "static"])
@pytest.mark.parametrize("prompts", [NO_PROMPTS, {"query": "red: ", "document": "blue: "}])
def test_features_are_the_students_own(index, student_folder, kind, prompts):
    student = static_student(student_folder) if kind == "static" else load_model(student_folder)
    if kind == "left":
        student.tokenizer.padding_side = "left"
    cache = TokenCache.of(index, student, prompts)
    rows = index.to_dataset()
    labels = np.array([3, 117, 60, 3, 0])
    batch = BatchCollator(preprocess_fn=student.preprocess, tokens=cache, columns=BatchColumns(index, 2))(
        [{"label": label} for label in labels]
    )
    assert batch.pop("label").tolist() == labels.tolist()
    for column in ("anchor", "positive", "negative_1", "negative_2"):
        prompt = prompts["query" if column == "anchor" else "document"]
        expected = student.preprocess([rows[int(label)][column] for label in labels], prompt=prompt or None)
        for name, value in expected.items():
            cached = batch.pop(f"{column}_{name}")
            assert torch.equal(cached, value) if isinstance(value, torch.Tensor) else cached == value
    assert not batch


def test_the_cache_is_made_once_and_used_by_every_student_with_the_tokenizer(
    index, student_folder, guide_folder, monkeypatch
):
    first = TokenCache.of(index, load_model(student_folder), NO_PROMPTS)
    monkeypatch.setattr("gistcache.train.batches.token_cache._make", lambda *_: pytest.fail("the cache is there"))
    again = TokenCache.of(index, load_model(guide_folder), NO_PROMPTS)  # another model, the same tokenizer
    assert again.folder == first.folder
    features = pickle.loads(pickle.dumps(again)).features(np.array([1]), "query")
    assert torch.equal(features["input_ids"], first.features(np.array([1]), "query")["input_ids"])


def test_what_would_change_the_tokens_makes_another_cache(index, student_folder):
    student = load_model(student_folder)
    folders = {TokenCache.of(index, student, NO_PROMPTS).folder}
    folders.add(TokenCache.of(index, student, {"query": "red: ", "document": ""}).folder)
    student.max_seq_length = 5
    shorter = TokenCache.of(index, student, NO_PROMPTS)
    assert shorter.features(np.arange(20), "query")["input_ids"].shape == (20, 5)
    folders.add(shorter.folder)
    student.tokenizer.truncation_side = "left"
    folders.add(TokenCache.of(index, student, NO_PROMPTS).folder)
    student.tokenizer.add_tokens(["dogcat"])
    folders.add(TokenCache.of(index, student, NO_PROMPTS).folder)
    assert len(folders) == 5


def test_a_damaged_or_unfinished_cache_is_made_again(index, student_folder):
    student = load_model(student_folder)
    whole = TokenCache.of(index, student, NO_PROMPTS)
    expected = {path.name: path.read_bytes() for path in whole.folder.iterdir() if path.name != "holder.json"}
    assert {"ids.int32", "offsets.npy", "manifest.json"} < expected.keys()
    (whole.folder / "ids.int32").write_bytes(b"short")
    (whole.folder / "offsets.npy").unlink()
    TokenCache.of(index, student, NO_PROMPTS)
    (whole.folder / "manifest.json").unlink()
    TokenCache.of(index, student, NO_PROMPTS)
    assert {path.name: path.read_bytes() for path in whole.folder.iterdir() if path.name != "holder.json"} == expected


def test_a_cache_that_another_process_is_making_is_waited_for(index, student_folder, monkeypatch):
    student = load_model(student_folder)
    folder = TokenCache.of(index, student, NO_PROMPTS).folder
    (folder / "manifest.json").rename(folder / "later")
    monkeypatch.setattr("gistcache.train.batches.token_cache._make", lambda *_: pytest.fail("the other has made it"))
    with ThreadPoolExecutor(1) as pool:
        with folder_lock(folder):
            waiting = pool.submit(TokenCache.of, index, student, NO_PROMPTS)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            (folder / "later").rename(folder / "manifest.json")
        assert waiting.result(timeout=20).folder == folder


def test_where_no_folder_can_be_written_texts_are_tokenised_batch_by_batch(index, student_folder, caplog, monkeypatch):
    for parent in (index.layout.root.with_name("index.tokens"), index.layout.root.with_name("gistcache")):
        parent.write_text("a file where the folder would be")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", index.layout.root.parent)
    assert TokenCache.of(index, load_model(student_folder), NO_PROMPTS) is None
    assert caplog.text.count("cannot be cached") == 2


def test_training_is_the_same_with_and_without(index, student_folder, tmp_path):
    weights = []
    for cached in (True, False):
        out = tmp_path / f"run-{cached}"
        fixed = {"batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "max_steps": 4, "query_prompt": "red: "}
        train_student(
            TrainSettings(index=index.layout.root, student=str(student_folder), out=out, token_cache=cached, **fixed)
        )
        weights.append(load_file(out / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
