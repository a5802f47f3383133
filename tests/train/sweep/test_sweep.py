"""Many students, one index: which runs a file means, that each is kept, resumed or retried, and how they are ranked."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from gistcache.shared.errors import GistcacheError, SettingsError
from gistcache.train.run.output_folder import SWEEP_LOG
from gistcache.train.run.run import train_student
from gistcache.train.sweep import runs as sweep_runs
from gistcache.train.sweep.command import sweep
from gistcache.train.sweep.sweep_file import as_words, read_sweep

from tests.conftest import random_pairs, write_jsonl

FILE = """
[sweep]
students = ["org/small", "package:tiny"]
eval_pairs = ["held.jsonl"]

[settings]
batch-size = 16
token_cache = false

[grid]
temperature = [0.02, 0.05]
layers = [1, 2, 3]

[[runs]]
student = "other/small"
margin = 0.1
"""


def runs_of(tmp_path, content):
    (tmp_path / "sweep.toml").write_text(content)
    return read_sweep(tmp_path / "sweep.toml")


def test_a_grid_is_every_combination_for_every_student_and_explicit_runs_follow(tmp_path):
    shared, runs = runs_of(tmp_path, FILE)
    grid = itertools.product(shared.students, (0.02, 0.05), (1, 2, 3))
    settings = [run.settings for run in runs]
    assert [(s.student, s.objective.temperature, s.layers) for s in settings[:-1]] == list(grid)
    assert (settings[-1].student, settings[-1].objective.margin, settings[-1].layers) == ("other/small", 0.1, None)
    assert all(s.batch_size == 16 and not s.token_cache and s.eval_pairs == ("held.jsonl",) for s in settings)
    assert all(s.out == Path("runs/sweep") / run.name for s, run in zip(settings, runs, strict=True))


def test_the_file_of_the_documentation_is_one(tmp_path):
    page = Path(__file__).parents[3].joinpath("docs", "COMMANDS.md").read_text(encoding="utf-8")
    content = next(block for block in page.split("```toml\n") if block.startswith("[sweep]")).partition("```")[0]
    assert len(runs_of(tmp_path, content)[1]) == 2 * 2 * 2 + 1


def test_folders_are_named_by_their_own_flags_and_stay(tmp_path):
    content = FILE.replace("[sweep]", f'[sweep]\nout = "{tmp_path}"')
    names = [run.name for run in runs_of(tmp_path, content)[1]]
    assert names[0].startswith("org-small_temperature-0.02_layers-1_")
    assert names[6].startswith("package-tiny_temperature-0.02_layers-1_")
    assert names[-1].startswith("other-small_margin-0.1_")
    assert len(set(names)) == len(names)
    (tmp_path / names[0]).mkdir()
    grown = content.replace("[grid]", "[grid]\nmargin = [0.0, 0.2]").replace(
        "token_cache", "save_minutes = 1\ntoken_cache"
    )
    assert names[0] in [run.name for run in runs_of(tmp_path, grown)[1]]


def test_without_grid_and_runs_each_student_is_trained_once(tmp_path):
    content = FILE.partition("[grid]")[0]
    assert [run.settings.student for run in runs_of(tmp_path, content)[1]] == ["org/small", "package:tiny"]
    explicit = content + "[[runs]]\nlayers = 1\n[[runs]]\nlayers = 2\n"
    assert [run.settings.layers for run in runs_of(tmp_path, explicit)[1]] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("temperature", "temprature", ["Did you mean --temperature", "temprature = 0.02", "org/small"]),
        ("students", "studnets", ["Did you mean --students", "[sweep]"]),
        ("[grid]", "[gird]", ["[gird]", "did you mean [grid]"]),
        ("batch-size = 16", "batch-size = 1", ["1 is out of range", "--batch-size"]),
        ("batch-size = 16", 'batch-size = "x"', ["--batch-size", "int"]),
        ("layers = [1, 2, 3]", "layers = 3", ["layers lists no values", "[grid]"]),
        ("batch-size = 16", 'out = "x"', ["out is no setting of single runs", "[settings]"]),
        ("batch-size = 16", 'student = "x"', ["student is no setting of single runs", "students in [sweep]"]),
        ("margin = 0.1", "resume = true", ["resume is no setting", "[runs]"]),
        ("batch-size = 16", 'push_to_hub = "a/b"', ["push-to-hub is no setting any more", "push_to_hub("]),
        ("[[runs]]", "[runs]", ["write [[runs]]"]),
        ('eval_pairs = ["held.jsonl"]', "", ["--eval-pairs"]),
        ('eval_pairs = ["held.jsonl"]', 'eval_pairs = ["x"]\nmetric = "ndcg"', ["--metric", "ndcg@10"]),
    ],
)
def test_every_fault_is_reported_before_the_first_run(tmp_path, old, new, expected):
    with pytest.raises(SettingsError) as caught:
        runs_of(tmp_path, FILE.replace(old, new))
    for words in ("sweep.toml", *expected):
        assert words in str(caught.value)


def test_runs_that_would_train_the_same_weights_are_one(tmp_path):
    _, runs = runs_of(tmp_path, FILE)
    again = FILE.replace("[0.02, 0.05]", "[0.02, 0.05, 0.02]")
    again += '[[runs]]\nstudent = "org/small"\ntemperature = 0.05\nlayers = 2\nmargin = 0.0\n'
    assert [run.name for run in runs_of(tmp_path, again)[1]] == [run.name for run in runs]


def test_words_are_read_as_they_were_meant(tmp_path):
    flags = {"a": True, "b": False, "c": [1, 2], "d": "-x", "e": 1e-05, "f": "two words"}
    assert as_words(flags) == ["--a=true", "--b=false", "--c=1", "--c=2", "--d=-x", "--e=1e-05", "--f=two words"]


# Runs in this process, which has loaded the libraries.
@pytest.fixture
def trained_here(monkeypatch):
    trained = []

    def start(run, slot, jobs):
        trained.append(run.name)
        try:
            train_student(run.settings)
        except GistcacheError as error:
            (run.settings.out / SWEEP_LOG).write_text(f"chatter\nerror: {error}\n")
            code = error.exit_code
        else:
            code = 0
        return SimpleNamespace(poll=lambda: code, returncode=code)

    monkeypatch.setattr(sweep_runs, "_start", start)
    return trained


@pytest.fixture
def sweep_file(tmp_path, small_index, student_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "held.jsonl", random_pairs(10, seed=5))
    (tmp_path / "sweep.toml").write_text(
        f'[sweep]\nindex = "{small_index}"\nstudents = ["{student_folder}"]\neval-pairs = ["held.jsonl"]\n'
        'metric = "mrr@10"\n[settings]\nmax-steps = 2\nbatch-size = 16\nlearning-rate = 1e-2\ndevice = "cpu"\n'
        "[grid]\nlayers = [1, 9, 3]\n"
    )
    return tmp_path / "sweep.toml"


def files_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def test_a_sweep_ends_with_the_ranked_runs_and_goes_on_where_it_was(sweep_file, small_index, trained_here):
    index = files_of(small_index)
    outcome = sweep(sweep_file)
    assert (outcome.exit_code, len(trained_here)) == (1, 3)
    assert files_of(small_index) == index
    rows = pq.read_table("runs/sweep/leaderboard.parquet").to_pylist()
    assert [row["layers"] for row in rows][2] == 9
    assert "4 layers, not 9" in rows[2]["error"]
    assert "chatter" not in rows[2]["error"]
    assert rows[2]["mrr@10"] is None
    for row in rows[:2]:
        metrics = json.loads(Path("runs/sweep", row["run"], "metrics.json").read_text())
        assert row["mrr@10"] == metrics["retrieval"]["student after"]["mrr@10"]
        assert row["parameters"] == metrics["parameters"]
        assert row["learning_rate"] == 1e-2
        assert row["error"] is None
    assert rows[0]["mrr@10"] >= rows[1]["mrr@10"]
    best = outcome.data["best"]
    assert best["run"] == rows[0]["run"]
    assert "gistcache train --index=" in best["command"]
    # Once more: what is finished is kept, by its content; what failed is tried again.
    trained_here.clear()
    assert sweep(sweep_file, jobs=2).data["runs"] == outcome.data["runs"]
    assert trained_here == [rows[2]["run"]]


def test_a_finished_run_on_other_data_is_refused_and_the_rest_go_on(sweep_file, trained_here):
    sweep_file.write_text(sweep_file.read_text().replace("layers = [1, 9, 3]", "layers = [1]"))
    assert sweep(sweep_file).exit_code == 0
    write_jsonl(sweep_file.with_name("held.jsonl"), random_pairs(10, seed=6))
    sweep_file.write_text(sweep_file.read_text().replace("layers = [1]", "layers = [1, 2]"))
    outcome = sweep(sweep_file)
    errors = [row["error"] for row in outcome.data["runs"]]
    assert errors[0] is None
    assert "settings.held_out" in errors[1]


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A trainer that is a script: what it is told, and how it ends, is what the test is about."""

    def pretend(script):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        content = FILE.replace("[sweep]", f'[sweep]\nout = "{tmp_path / "out"}"')
        return runs_of(tmp_path, content)[1][:3]

    return pretend


def test_children_share_the_threads_and_the_gpus(pretended, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    runs = pretended('echo "$OMP_NUM_THREADS gpu $CUDA_VISIBLE_DEVICES $@"; sleep 0.2; echo "error: no"; exit 3')
    ended = sweep_runs.train_all(runs, 3)
    said = [(run.settings.out / SWEEP_LOG).read_text() for run in runs]
    assert all(
        text.startswith("2 gpu ") and "-m gistcache.train --index=" in text and "--resume" in text for text in said
    )
    assert {text.split()[2] for text in said} == {"4", "5", "6"}
    assert [each.run for each in ended] == runs
    assert all(each.error and each.error.startswith("no\n") for each in ended)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", "exit code 0"),
        ("echo a; echo b; exit 1", "a\nb"),
        ("exit 4", "exit code 4"),
    ],
)
def test_the_reason_of_a_failure_is_reported(pretended, script, reason):
    (ended,) = sweep_runs.train_all(pretended(script)[:1], 1)
    assert ended.metrics is None
    assert reason in ended.error
    assert SWEEP_LOG in ended.error


def test_ctrl_c_lets_runs_end_with_a_checkpoint_and_starts_no_other(pretended, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    runs = pretended("trap 'echo checkpoint; exit 0' TERM; echo begun; sleep 60 & wait")
    logs = [run.settings.out / SWEEP_LOG for run in runs]

    def interrupt():
        while not all(log.exists() and "begun" in log.read_text() for log in logs[:2]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        sweep_runs.train_all(runs, 2)
    assert [log.read_text() for log in logs[:2]] == ["begun\ncheckpoint\n"] * 2
    assert not logs[2].exists() or not logs[2].read_text()
