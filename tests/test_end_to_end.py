"""The whole job through the command line, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from gistcache.shared.cli import app as cli

from tests.conftest import random_pairs, write_jsonl

SCRIPT = Path(sys.executable).with_name("gistcache")


def run(*arguments, cwd, code=0, **environment):
    process = subprocess.run(
        [str(SCRIPT), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ
        | {"COLUMNS": "200", "HF_DATASETS_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
        | environment,
    )
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout + process.stderr


def run_here(*arguments, monkeypatch, capsys, code=0):
    """Run a command in this process, where the libraries are loaded already."""
    monkeypatch.setattr(sys, "argv", ["gistcache", *map(str, arguments)])
    try:
        exit_code = cli.run()
    except SystemExit as end:
        exit_code = end.code or 0
    output = capsys.readouterr()
    assert exit_code == code, output
    assert "Traceback" not in output.err
    return output.out + output.err


def test_index_verify_train_eval(tmp_path, guide_folder, student_folder, monkeypatch, capsys):
    """The two stages as processes of their own; what looks at their results, here."""
    here = partial(run_here, monkeypatch=monkeypatch, capsys=capsys)
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "pairs.jsonl", [*random_pairs(120, seed=30), {"anchor": " ", "positive": "x"}])
    write_jsonl(tmp_path / "held-out.jsonl", random_pairs(20, seed=31))
    (tmp_path / "sts.csv").write_text("red dog,red cat,3.0\nblue sea,old king,0.5\nsand,sand storm,4\n")
    index = ["index", "pairs.jsonl", "--guide", guide_folder, "--out", "index", "--eval-pairs", "held-out.jsonl"]
    index += ["--vector-dtype", "int8"]
    output = run(*index, cwd=tmp_path)
    assert "1 blank text" in output
    assert "120" in output
    output = here("verify", "index")
    assert "no fault" in output
    assert "mask decisions that change by rounding vectors to int8" in output
    assert "nothing to do" in here(*index)
    trained = run(
        *("train", "--index", "index", "--student", student_folder, "--layers", "2", "--out", "run"),
        *("--batch-size", "16", "--max-steps", "4", "--eval-pairs", "held-out.jsonl", "--learning_rate", "1e-3"),
        cwd=tmp_path,
    )
    for word in ("student before", "student after", "guide", "ndcg@10", "masked as false negatives"):
        assert word in trained
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["settings"]["learning_rate"] == 1e-3
    assert metrics["index"]["seconds"]["embed"] > 0
    here("eval", "run", "--pairs", "held-out.jsonl", "--sts", "sts.csv", "--out", "eval.json")
    scores = json.loads((tmp_path / "eval.json").read_text())
    assert scores["ndcg@10"] == pytest.approx(metrics["retrieval"]["student after"]["ndcg@10"], abs=1e-6)
    assert -1 <= scores["spearman"] <= 1


def test_a_toml_file_gives_flags_and_the_command_line_wins(tmp_path, guide_folder, monkeypatch, capsys):
    write_jsonl(tmp_path / "pairs.jsonl", random_pairs(20, seed=32))
    (tmp_path / "run.toml").write_text(f'[index]\nguide = "{guide_folder}"\nout = "from-file"\nneighbors = 3\n')
    monkeypatch.chdir(tmp_path)
    words = ("index", "pairs.jsonl", "--config", "run.toml", "--out", "from-flag")
    run_here(*words, monkeypatch=monkeypatch, capsys=capsys)
    manifest = json.loads((tmp_path / "from-flag" / "manifest.json").read_text())
    assert manifest["settings"]["neighbors"] == 3
    assert not (tmp_path / "from-file").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["index", "none.jsonl", "--guide", "GUIDE"], 3, ["none.jsonl", "does not exist"]),
        (["index", "pairs.jsonl", "--guide", "./no-model"], 4, ["no model folder", "./no-model"]),
        (["index", "pairs.jsonl", "--guide", "package:not-installed"], 4, ["No installed package", "pip install"]),
        (["index", "pairs.jsonl", "--guide", "someone/some-model"], 4, ["cannot be fetched", "someone/some-model"]),
        (["index", "pairs.jsonl", "--guide", "GUIDE", "--neighbors", "0"], 2, ["--neighbors", "1 or more"]),
        (["index", "bad.jsonl", "--guide", "GUIDE"], 3, ["bad.jsonl", "not JSON"]),
        (["index", "pairs.jsonl", "--guide", "GUIDE", "--neighbours", "3"], 2, ["Did you mean", "--neighbors"]),
        (["train", "--index", "nowhere", "--student", "GUIDE"], 5, ["no guide index", "gistcache index"]),
        (["train", "--student", "GUIDE", "--temperature", "0"], 2, ["--temperature"]),
        (["train", "--student", "GUIDE", "--seed", "-1"], 2, ["--seed"]),
        (["index", "pairs.jsonl", "--guide", "GUIDE", "--seed", "-1"], 2, ["--seed"]),
        (["index", "pairs.jsonl", "--guide", "GUIDE", "--out", "/proc/nowhere"], 1, ["/proc/nowhere", "permissions"]),
        (["verify", "nowhere"], 5, ["no guide index"]),
        (["eval", "GUIDE"], 2, ["nothing to evaluate", "--pairs"]),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(tmp_path, guide_folder, monkeypatch, capsys, arguments, code, words):
    write_jsonl(tmp_path / "pairs.jsonl", random_pairs(10, seed=33))
    (tmp_path / "bad.jsonl").write_text("not json\nneither\n")
    arguments = [str(guide_folder) if argument == "GUIDE" else argument for argument in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = run_here(*arguments, monkeypatch=monkeypatch, capsys=capsys, code=code)
    for word in words:
        assert word in output


def test_help_names_every_command(tmp_path, monkeypatch, capsys):
    output = run("--help", cwd=tmp_path)
    for command in ("index", "train", "verify", "eval"):
        assert command in output
    for command, flag in (("index", "--query-prompt"), ("train", "--margin-strategy"), ("eval", "--sts")):
        assert flag in run_here(command, "--help", monkeypatch=monkeypatch, capsys=capsys)
