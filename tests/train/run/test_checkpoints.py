"""Going on after an interruption: from whole checkpoints only, of the same run only, to the same weights."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from gistcache.shared.errors import FolderLockedError, GistcacheError, StaleIndexError, StoppedEarly
from gistcache.shared.storage.lock import folder_lock
from gistcache.train.loss.guided_loss import MAP_FILE
from gistcache.train.run import checkpoints as module
from gistcache.train.run.checkpoints import SEAL_FILE, all_checkpoints, writing_to
from gistcache.train.run.run import train_student
from gistcache.train.settings import DistillationSettings, HardNegativeSettings, LossSettings, TrainSettings
from safetensors.torch import load_file

from tests.conftest import build_test_index, random_pairs, write_jsonl


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory, guide_folder):
    return build_test_index(tmp_path_factory.mktemp("train") / "index", random_pairs(160, seed=20), guide_folder)


@pytest.fixture
def settings_of(index_folder, student_folder):
    """Settings of one run: 12 steps over 10 batches an epoch, so that it reaches into the second epoch."""

    def make(out, **changes):
        fixed = {"batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "max_steps": 12}
        fixed |= {"save_steps": 3, "logging_steps": 3}
        return TrainSettings(index=(index_folder,), student=str(student_folder), out=out, **(fixed | changes))

    return make


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, index_folder, student_folder):
    """An uninterrupted run, which leaves its checkpoints of steps 9 and 12."""
    out = tmp_path_factory.mktemp("whole") / "run"
    metrics = train_student(
        TrainSettings(
            index=(index_folder,),
            student=str(student_folder),
            out=out,
            batch_size=16,
            learning_rate=1e-3,
            device="cpu",
            max_steps=12,
            save_steps=3,
            logging_steps=3,
        )
    )
    return out, metrics


def cut_run(whole: Path, out: Path) -> list[Path]:
    """As if the run had been killed after its last checkpoint: no model, no metrics."""
    shutil.copytree(whole / "checkpoints", out / "checkpoints")
    return all_checkpoints(out / "checkpoints")


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, whole_run, settings_of):
    whole, figures = whole_run
    nine, twelve = cut_run(whole, tmp_path / "cut")
    assert (nine.name, twelve.name) == ("checkpoint-9", "checkpoint-12")
    shutil.rmtree(twelve)
    with pytest.raises(StaleIndexError, match="--resume"):
        train_student(settings_of(tmp_path / "cut"))
    again = train_student(settings_of(tmp_path / "cut", resume=True))
    assert_same_weights(whole, tmp_path / "cut")
    assert again["removed_share"] == figures["removed_share"]
    assert again["training_loss"] == pytest.approx(figures["training_loss"])
    for name in ("removed_share", "effective_negatives", "mean_threshold"):
        logged, expected = ([entry[name] for entry in run["log"] if name in entry] for run in (again, figures))
        assert len(logged) == 4
        assert logged == expected


def test_what_the_loss_learns_and_what_an_epoch_draws_go_on_too(tmp_path, settings_of):
    objective = LossSettings(
        temperature=0.05,
        mining=HardNegativeSettings(hard_negatives=2),
        terms=DistillationSettings(regression_weight=1.0, kl_weight=0.5),
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    figures = train_student(settings_of(whole, objective=objective, hardness=3))
    for checkpoint in cut_run(whole, cut):
        if checkpoint.name != "checkpoint-9":
            shutil.rmtree(checkpoint)
    again = train_student(settings_of(cut, objective=objective, hardness=3, resume=True))
    assert_same_weights(whole, cut)
    assert again["training_loss"] == pytest.approx(figures["training_loss"])
    maps = [load_file(folder / "checkpoints" / "checkpoint-12" / MAP_FILE)["weight"] for folder in (whole, cut)]
    before = load_file(whole / "checkpoints" / "checkpoint-9" / MAP_FILE)["weight"]
    assert torch.equal(*maps)
    assert not torch.equal(before, maps[0])
    assert not list(cut.glob("*map*"))


@pytest.mark.parametrize("hurt", ["no seal", "cut file", "flipped bit", "missing file", "flipped seal"])
def test_a_checkpoint_that_is_not_whole_is_set_aside(tmp_path, whole_run, settings_of, hurt, caplog):
    whole, _ = whole_run
    nine, twelve = cut_run(whole, tmp_path / "cut")
    if hurt == "no seal":
        (twelve / SEAL_FILE).unlink()
    elif hurt == "missing file":
        (twelve / "optimizer.pt").unlink()
    else:
        path = twelve / (SEAL_FILE if hurt == "flipped seal" else "model.safetensors")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes(data[:-100] if hurt == "cut file" else data)
    with caplog.at_level(logging.WARNING):
        train_student(settings_of(tmp_path / "cut", resume=True))
    assert "checkpoint-12" in caplog.text
    assert nine.parent.joinpath("damaged-checkpoint-12").is_dir()
    assert_same_weights(whole, tmp_path / "cut")


def test_other_settings_are_named_and_free_ones_go_on(tmp_path, whole_run, settings_of, student_folder):
    whole, _ = whole_run
    cut_run(whole, tmp_path / "cut")
    other = settings_of(tmp_path / "cut", resume=True, seed=4, objective=LossSettings(margin=0.1))
    with pytest.raises(StaleIndexError) as caught:
        train_student(other)
    assert "settings.seed: checkpoint has 0, command asks for 4" in str(caught.value)
    assert "settings.objective.margin: checkpoint has 0.0, command asks for 0.1" in str(caught.value)
    moved = tmp_path / "moved"
    shutil.copytree(student_folder, moved)
    free = {"logging_steps": 5, "save_steps": 4, "token_cache": False, "student": str(moved), "resume": True}
    train_student(TrainSettings(**(vars(settings_of(tmp_path / "cut")) | free)))
    assert_same_weights(whole, tmp_path / "cut")


def test_a_finished_run_is_left_as_it_is(tmp_path, whole_run, settings_of):
    whole, figures = whole_run
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert train_student(settings_of(out))["retrieval"] == figures["retrieval"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(StaleIndexError, match="trained model has 0, command asks for 7"):
        train_student(settings_of(out, seed=7))


def test_held_out_pairs_are_told_by_their_content(tmp_path, settings_of):
    held_out = write_jsonl(tmp_path / "held.jsonl", random_pairs(10, seed=1))
    moved = write_jsonl(tmp_path / "moved.jsonl", random_pairs(10, seed=1))
    train_student(settings_of(tmp_path / "run", max_steps=1, eval_pairs=(str(held_out),)))
    train_student(settings_of(tmp_path / "run", max_steps=1, eval_pairs=(str(moved),)))
    write_jsonl(held_out, random_pairs(10, seed=2))
    with pytest.raises(StaleIndexError, match=r"settings\.held_out"):
        train_student(settings_of(tmp_path / "run", max_steps=1, eval_pairs=(str(held_out),)))


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path, whole_run, settings_of):
    train_student(settings_of(tmp_path / "new", resume=True))
    assert_same_weights(whole_run[0], tmp_path / "new")


def test_checkpoints_come_by_the_clock(tmp_path, settings_of):
    train_student(settings_of(tmp_path / "run", save_steps=None, save_minutes=1e-9, max_steps=4))
    assert [path.name for path in all_checkpoints(tmp_path / "run" / "checkpoints")] == ["checkpoint-3", "checkpoint-4"]
    train_student(settings_of(tmp_path / "none", save_steps=None, max_steps=4))
    assert all_checkpoints(tmp_path / "none" / "checkpoints") == []


def test_being_told_to_end_saves_and_says_how_to_go_on(tmp_path, whole_run, settings_of, monkeypatch):
    import os
    import signal

    original = module.Checkpoints.on_step_end

    def told_at_step_five(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(module.Checkpoints, "on_step_end", told_at_step_five)
    with pytest.raises(StoppedEarly, match="step 5 of 12") as caught:
        train_student(settings_of(tmp_path / "cut"))
    assert "--resume" in caught.value.fix
    assert not (tmp_path / "cut" / "metrics.json").exists()
    monkeypatch.undo()
    train_student(settings_of(tmp_path / "cut", resume=True))
    assert_same_weights(whole_run[0], tmp_path / "cut")


def test_two_runs_into_one_folder_are_told_of_each_other(tmp_path, settings_of):
    with folder_lock(tmp_path / "run" / "checkpoints"), pytest.raises(FolderLockedError, match="held by process"):
        train_student(settings_of(tmp_path / "run"))


def test_a_failed_write_is_an_error_that_says_so_and_leaves_no_half_checkpoint(tmp_path, whole_run):
    cut_run(whole_run[0], tmp_path / "cut")
    folder = tmp_path / "cut" / "checkpoints"
    (folder / "checkpoint-15").mkdir()
    with pytest.raises(GistcacheError, match="disk cannot take") as caught, writing_to(folder):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3")
    assert "--resume" in caught.value.fix
    assert [path.name for path in all_checkpoints(folder)] == ["checkpoint-9", "checkpoint-12"]
    with pytest.raises(RuntimeError, match="shapes"), writing_to(folder):
        raise RuntimeError("shapes do not match")


def test_metrics_hold_what_the_run_was(whole_run):
    held = json.loads((whole_run[0] / "metrics.json").read_text())
    assert set(held["run"]) == {"index", "student", "settings"}
    assert "out" not in held["run"]["settings"]
