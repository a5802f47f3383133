"""Stage 2 through its own entry: what it writes, what it holds in memory, resuming, comparison without the guide."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import gistcache.train
import numpy as np
import pytest
import torch
from datasets import Dataset
from gistcache.shared.data.columns import Columns
from gistcache.shared.errors import GistcacheError, InputError, ModelError, SettingsError, StaleIndexError
from gistcache.shared.evaluation.retrieval import RetrievalSet
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss, PlannedBatches
from gistcache.train.run.run import train_student
from gistcache.train.settings import LossSettings, TrainSettings
from gistcache.train.student.load import load_student, prune_layers
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

from tests.conftest import build_test_index, random_pairs, write_jsonl


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("held") / "held.jsonl", random_pairs(30, seed=21))


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory, guide_folder, held_out):
    rows = random_pairs(160, seed=20)
    return build_test_index(tmp_path_factory.mktemp("train") / "index", rows, guide_folder, eval_pairs=(str(held_out),))


def settings_for(index_folder, student_folder, out, **changes):
    fixed = {"batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "max_steps": 6, "logging_steps": 2}
    return TrainSettings(index=index_folder, student=str(student_folder), out=out, **(fixed | changes))


def test_a_run_leaves_a_model_its_card_and_its_figures(tmp_path, index_folder, student_folder, held_out):
    out = tmp_path / "run"
    metrics = train_student(
        settings_for(index_folder, student_folder, out, layers=2, eval_pairs=(str(held_out),), eval_steps=3)
    )
    model = SentenceTransformer(str(out), device="cpu")
    assert len(model[0].model.encoder.layer) == 2
    again = RetrievalSet.read([str(held_out)]).evaluate(model)
    assert again == pytest.approx(metrics["retrieval"]["student after"], abs=1e-6)
    assert metrics["retrieval"]["guide"] == GuideIndex.open(index_folder).manifest.measured["guide"]
    assert metrics["retrieval"]["student after"] != metrics["retrieval"]["student before"]
    assert 0 < metrics["removed_share"] < 1
    assert metrics["steps"] == 6
    assert json.loads((out / "metrics.json").read_text())["seconds"]["train"] > 0
    assert [entry["removed_share"] for entry in metrics["log"] if "removed_share" in entry]
    card = (out / "README.md").read_text()
    files = GuideIndex.open(index_folder).manifest.request.guide["files"]
    assert files["model.safetensors"][:16] in card
    assert '"temperature": 0.05' in card


def test_from_python_with_keywords_and_an_open_index(tmp_path, index_folder, student_folder):
    settings = {"batch_size": 16, "device": "cpu", "max_steps": 2, "temperature": 0.1, "kl_weight": 0.5}
    index = GuideIndex.open(index_folder)
    metrics = gistcache.train.train_student(
        index=index, student=str(student_folder), out=str(tmp_path / "run"), **settings
    )
    assert metrics["steps"] == 2
    assert metrics["settings"]["objective"]["temperature"] == 0.1
    assert metrics["settings"]["objective"]["terms"]["kl_weight"] == 0.5
    assert SentenceTransformer(str(tmp_path / "run"), device="cpu").encode(["red"]).shape == (1, 16)
    with pytest.raises(TypeError, match="student"):
        gistcache.train.train_student(index=index)


def test_the_trainer_holds_no_parameters_but_the_students(index_folder, student_folder):
    index = GuideIndex.open(index_folder)
    student = load_student(str(student_folder))
    loss = GuidedContrastiveLoss(student, index)
    columns = index.to_dataset().select(range(16))
    features = [student.preprocess(list(columns[name])) for name in ("anchor", "positive")]
    loss(features, torch.arange(16)).backward()
    own = {id(parameter) for parameter in student.parameters()}
    assert {id(parameter) for parameter in loss.parameters()} == own
    dim = index.dim
    # Every transformer alive in this process that is not the student would show here by its embedding width.
    alive = [thing for thing in gc.get_objects() if isinstance(thing, nn.Embedding) and thing.embedding_dim == dim]
    held = {id(module) for module in loss.modules()}
    assert not [thing for thing in alive if id(thing) in held]


def test_unguided_keeps_the_cells_that_the_guide_takes_out(tmp_path, index_folder, student_folder):
    guided = train_student(settings_for(index_folder, student_folder, tmp_path / "guided", max_steps=2))
    unguided = train_student(
        settings_for(
            index_folder, student_folder, tmp_path / "unguided", max_steps=2, objective=LossSettings(loss="unguided")
        )
    )
    assert guided["removed_share"] > 0
    assert unguided["removed_share"] is None
    assert unguided["training_loss"] > guided["training_loss"]


def test_gradient_accumulation_and_negatives_and_prompts_train(tmp_path, prompted_guide_folder, student_folder):
    folder = build_test_index(tmp_path / "index", random_pairs(80, seed=22, negatives=3), prompted_guide_folder)
    metrics = train_student(
        settings_for(
            folder,
            student_folder,
            tmp_path / "run",
            batch_size=8,
            gradient_accumulation=2,
            max_steps=2,
            query_prompt="red: ",
            objective=LossSettings(negatives=2, margin=0.05, margin_strategy="relative", contrast_anchors=False),
        )
    )
    assert metrics["steps"] == 2
    assert np.isfinite(metrics["training_loss"])
    assert SentenceTransformer(str(tmp_path / "run"), device="cpu").prompts["query"] == "red: "


@pytest.mark.parametrize(
    "wrap", [lambda student, loss: loss, lambda student, loss: MatryoshkaLoss(student, loss, [16, 8])]
)
def test_the_loss_works_in_a_users_own_script(tmp_path, index_folder, student_folder, wrap):
    index = GuideIndex.open(index_folder)
    student = load_model(student_folder)
    args = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=16,
        max_steps=3,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        batch_sampler=PlannedBatches.of(index),
    )
    loss = wrap(student, GuidedContrastiveLoss(student, index, temperature=0.05))
    trainer = SentenceTransformerTrainer(student, args, train_dataset=index.to_dataset(), loss=loss)
    assert np.isfinite(trainer.train().training_loss)


def test_a_dataset_without_labels_is_an_error_that_says_what_to_do(index_folder, student_folder):
    student = load_model(student_folder)
    loss = GuidedContrastiveLoss(student, GuideIndex.open(index_folder))
    with pytest.raises(SettingsError, match="label"):
        loss([student.preprocess(["red"]), student.preprocess(["dog"])], None)


def test_the_dataset_has_the_pairs_and_repeats_a_positive_for_a_missing_negative(tmp_path, guide_folder):
    rows = [
        {"anchor": "red dog", "positive": "blue cat", "negative": ["old", "sea wind"]},
        {"anchor": "paper house", "positive": "stone road", "negative": []},
    ]
    rows[0]["negative"][0] = "sand"
    dataset = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder)).to_dataset()
    assert isinstance(dataset, Dataset)
    assert dataset[:] == {
        "anchor": ["red dog", "paper house"],
        "positive": ["blue cat", "stone road"],
        "negative_1": ["sand", "stone road"],
        "negative_2": ["sea wind", "stone road"],
        "label": [0, 1],
    }


def test_missing_negatives_leave_the_loss(tmp_path, guide_folder, student_folder):
    texts = [row["anchor"] for row in random_pairs(8, seed=23)]
    rows = [
        {"anchor": texts[0], "positive": texts[1], "negative": [texts[2]]},
        {"anchor": texts[3], "positive": texts[4], "negative": []},
    ]
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder))
    student = load_model(student_folder).eval()
    loss = GuidedContrastiveLoss(student, index, temperature=0.1, loss="unguided", known_positives=False)
    columns = [[texts[0], texts[3]], [texts[1], texts[4]]]

    def value(second_negative):
        features = [student.preprocess(column) for column in (*columns, [texts[2], second_negative])]
        return loss(features, torch.arange(2)).item()

    assert value(texts[5]) == pytest.approx(value(texts[6]), abs=1e-6)


def test_layers_are_kept_evenly_and_the_model_still_loads(tmp_path, student_folder):
    model = load_model(student_folder)
    layers = list(model[0].model.encoder.layer)
    prune_layers(model, 2)
    assert [id(layer) for layer in model[0].model.encoder.layer] == [id(layers[0]), id(layers[3])]
    model.save_pretrained(str(tmp_path / "cut"))
    again = load_model(tmp_path / "cut")
    assert np.allclose(again.encode(["red dog"]), model.encode(["red dog"]), atol=1e-6)
    with pytest.raises(SettingsError, match="4 layers"):
        load_student(str(student_folder), layers=9)


def test_pickled_weights_and_foreign_code_are_refused(tmp_path, student_folder):
    import shutil

    pickled = tmp_path / "pickled"
    shutil.copytree(student_folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_student(str(pickled))
    foreign = tmp_path / "foreign"
    shutil.copytree(student_folder, foreign)
    modules = json.loads((foreign / "modules.json").read_text())
    modules[0]["type"] = "evil.Transformer"
    (foreign / "modules.json").write_text(json.dumps(modules))
    (foreign / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Transformer: pass\n")
    with pytest.raises(ModelError, match=r"evil\.Transformer"):
        load_student(str(foreign))
    assert not (tmp_path / "ran").exists()


def test_several_data_sets_have_an_index_a_loss_and_a_plan_each(tmp_path, guide_folder, index_folder, student_folder):
    rows = random_pairs(80, seed=24, negatives=1)
    indexes = {
        "one": GuideIndex.open(index_folder),
        "two": GuideIndex.open(build_test_index(tmp_path / "two", rows, guide_folder)),
    }
    student = load_model(student_folder)
    losses = {name: GuidedContrastiveLoss(student, index) for name, index in indexes.items()}

    def trainer_of(indexes_of_batches):
        args = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=8,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            batch_sampler=PlannedBatches.of(indexes_of_batches),
        )
        datasets = {name: index.to_dataset() for name, index in indexes.items()}
        return SentenceTransformerTrainer(student, args, train_dataset=datasets, loss=losses)

    trainer = trainer_of(indexes)
    batches = list(trainer.get_train_dataloader())
    for name, index in indexes.items():
        labels = [batch["label"].numpy() for batch in batches if batch["dataset_name"] == name]
        assert len(labels) > 5
        assert np.bincount(np.concatenate(labels)).max() == 1
        for batch in labels:
            ids = index.pairs(batch, 0)
            texts = index.content_ids(np.concatenate([ids.anchors, ids.positives]))
            assert len(np.unique(texts)) == len(texts)
    trainer.train()
    assert all(loss.statistics.counts().rows >= 8 * 5 for loss in losses.values())
    with pytest.raises(SettingsError, match="no index for the data set 'two'"):
        trainer_of({"one": indexes["one"]}).get_train_dataloader()


def test_what_cannot_be_trained_is_told_first(index_folder, student_folder, tmp_path):
    """But for one, the student is nowhere: that would be the error if it were looked for."""
    foreign = tmp_path / "project"
    foreign.mkdir()
    (foreign / "README.md").write_text("my own")

    def asked(**changes):
        return settings_for(index_folder, tmp_path / "no student", tmp_path / "out", **changes)

    with pytest.raises(StaleIndexError, match=r"holds no run: README\.md"):
        train_student(replace(asked(), out=foreign))
    (foreign / "checkpoints").mkdir()  # a project may have a folder of this name
    with pytest.raises(StaleIndexError, match=r"holds no run: README\.md, checkpoints"):
        train_student(replace(asked(), out=foreign))
    assert (foreign / "README.md").read_text() == "my own"
    with pytest.raises(SettingsError, match="file of this name"):
        train_student(replace(asked(), out=foreign / "README.md"))
    with pytest.raises(SettingsError, match="160 pairs are fewer than a batch of 161"):
        train_student(replace(asked(batch_size=161), student=str(student_folder)))
    with pytest.raises(SettingsError, match="wandbb is not supported"):
        train_student(asked(report_to=("wandbb",)))
    packages = ("neptune", "clearml")  # the one's callback says ValueError, the other's RuntimeError
    for absent in (package for package in packages if find_spec(package) is None):
        with pytest.raises(SettingsError, match=f"{absent} cannot be loaded.*pip install {absent}"):
            train_student(asked(report_to=(absent,)))


def test_held_out_columns_of_any_name_and_a_device_that_is_too_small(
    index_folder, student_folder, tmp_path, monkeypatch
):
    held_out = write_jsonl(tmp_path / "held.jsonl", [{"frage": f"red {i}", "antwort": f"blue {i}"} for i in range(4)])
    columns = Columns(anchor_column="frage", positive_column="antwort")
    settings = settings_for(index_folder, student_folder, tmp_path / "out", eval_pairs=(str(held_out),), max_steps=1)
    with pytest.raises(InputError, match="--anchor-column"):
        train_student(settings)
    assert train_student(replace(settings, columns=columns))["retrieval"]["student after"]["recall@10"] == 1.0

    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(GuidedContrastiveLoss, "forward", full)
    with pytest.raises(GistcacheError, match=r"out of memory(?s:.)*--mini-batch-num-tokens"):
        train_student(settings_for(index_folder, student_folder, tmp_path / "other"))


def test_a_logger_that_lacks_a_package_of_its_own_is_told(index_folder, tmp_path, monkeypatch):
    (tmp_path / "trackio.py").write_text("import nowhere_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    settings = settings_for(index_folder, tmp_path / "no student", tmp_path / "out", report_to=("trackio",))
    with pytest.raises(SettingsError, match="cannot be loaded: No module named 'nowhere_installed'"):
        train_student(settings)
