"""What a model card says, read by the hub's own library, and that it goes with the model."""

from __future__ import annotations

import pytest
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from tests.conftest import random_pairs, write_jsonl


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_index, student_folder):
    """Settings of a run that has ended, and its metrics."""
    folder = tmp_path_factory.mktemp("hub")
    held_out = write_jsonl(folder / "held.jsonl", random_pairs(20, seed=31))
    settings = {
        "index": small_index,
        "student": str(student_folder),
        "out": folder / "tiny",
        "batch_size": 16,
        "device": "cpu",
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-3,
        "eval_pairs": (str(held_out),),
        "eval_steps": 2,
    }
    return settings, train_student(TrainSettings(**settings))


def test_the_cards_metadata_is_the_hubs_and_its_results_are_those_after_training(trained):
    settings, metrics = trained
    text = (settings["out"] / "README.md").read_text()
    card = ModelCard(text, ignore_metadata_errors=False)
    assert {"sentence-transformers", "gistembed", "loss:GuidedContrastiveLoss"} <= set(card.data.tags)
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    held = {result.metric_type: result for result in card.data.eval_results}
    after = metrics["retrieval"]["student after"]
    assert after != metrics["retrieval"]["student before"]
    assert {name: held[f"cosine_{name}"].metric_value for name in after} == pytest.approx(after)
    assert held["cosine_ndcg@10"].dataset_name == "held out pairs"
    assert "@misc{solatorio2024gistembed" in text
    assert "label" not in text.partition("### Training Dataset")[2].partition("* Samples")[0]


def test_a_student_from_the_hub_is_named_as_base_model(tmp_path, trained, student_folder, monkeypatch):
    settings, _ = trained
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(student_folder))
    train_student(TrainSettings(**settings | {"out": tmp_path / "based", "student": "org/base", "max_steps": 2}))
    card = ModelCard.load(tmp_path / "based" / "README.md")
    assert card.data.base_model == "org/base"


def test_a_card_names_no_folder_of_this_machine_and_goes_with_the_model(trained, tmp_path):
    settings, _ = trained
    text = (settings["out"] / "README.md").read_text()
    for folder in (settings["out"].parent, settings["index"].parent, settings["student"]):
        assert str(folder) not in text
    # What SentenceTransformer.push_to_hub writes into the folder that it uploads.
    SentenceTransformer(str(settings["out"]), device="cpu").save_pretrained(str(tmp_path), "org/tiny")
    assert (tmp_path / "README.md").read_text() == text.replace("sentence_transformers_model_id", "org/tiny")
    assert not {"checkpoints", "metrics.json"} & {path.name for path in tmp_path.iterdir()}
