"""What every command shares: where results go, what stays quiet, settings printed and read back, exit codes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import tomllib
from pathlib import Path

import pytest
from gistcache.precompute.settings import IndexSettings
from gistcache.shared import errors, progress
from gistcache.shared.cli import app as cli
from gistcache.shared.cli import doctor
from gistcache.shared.cli.config_file import RENAMED, as_toml
from gistcache.shared.cli.main import RESUME_ADVICE

from tests.conftest import random_pairs, write_jsonl


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    level = logging.getLogger().level

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gistcache", *map(str, words)])
        try:
            code = cli.run()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    yield run
    cli.app.config = ()
    progress.console.quiet = False
    logging.captureWarnings(False)
    logging.getLogger().setLevel(level)


@pytest.fixture
def held_out(tmp_path) -> Path:
    return write_jsonl(tmp_path / "held-out.jsonl", random_pairs(6, seed=1))


def test_results_go_to_stdout_and_progress_to_stderr(command, small_index):
    code, out, err = command("verify", small_index)
    assert code == 0
    assert "no fault" in out
    assert "bytes in" in err
    assert "bytes in" not in out


@pytest.mark.parametrize("words", [("doctor",), ("verify", "INDEX"), ("eval", "GUIDE", "--pairs", "HELD_OUT")])
def test_json_is_one_object_and_all_of_stdout(command, small_index, guide_folder, held_out, words):
    places = {"INDEX": small_index, "GUIDE": guide_folder, "HELD_OUT": held_out}
    _, out, _ = command(*(places.get(word, word) for word in words), "--json")
    assert isinstance(json.loads(out), dict)
    assert out.count("\n") == 1


def test_what_a_library_prints_is_no_result(command, monkeypatch):
    devices = doctor._devices
    monkeypatch.setattr(doctor, "_devices", lambda: print("chatter") or devices())
    _, out, err = command("doctor", "--json")
    assert "chatter" in err
    assert "cpu" in json.loads(out)["devices"]


def test_only_rank_0_prints_and_every_rank_has_the_exit_code(command, monkeypatch):
    monkeypatch.setattr(doctor, "_import_faults", lambda: ["torch cannot be imported"])
    code, out, _ = command("doctor")
    assert (code, "torch cannot be imported" in out) == (1, True)
    monkeypatch.setenv("RANK", "1")
    assert command("doctor") == (1, "", "")


def test_quiet_says_nothing_but_faults(command, small_index, tmp_path):
    assert command("verify", small_index, "--quiet") == (0, "", "")
    broken = shutil.copytree(small_index, tmp_path / "broken")
    with (broken / "vectors" / "shard-00000.npy").open("ab") as file:
        file.write(b"x")
    code, out, err = command("verify", broken, "--quiet")
    assert (code, err) == (5, "")
    assert "fault: vectors/shard-00000.npy" in out
    code, out, err = command("verify", tmp_path / "none", "--quiet")
    assert (code, out) == (5, "")
    assert "no guide index" in err


@pytest.mark.parametrize(
    "words",
    [
        ("index", "a.jsonl", 'b "c".jsonl', "--guide", "ü/m\\x", "--dim", "16", "--eval-pairs", "x"),
        ("train", "--student", "s", "--learning-rate", "3e-4", "--no-token-cache", "--index", "a"),
        ("train", "--student", "s", "--query-prompt", "line\nbreak\x7f", "--matryoshka", "8,4"),
        ("eval", "m", "--pairs", "p"),
        ("verify", "somewhere"),
        ("mine", "index", "--hard-negatives", "2", "--out", "x.jsonl"),
        ("rescore", "index", "--reranker", "r", "--out", "o"),
        ("report", "index", "--runs", "a"),
        ("sweep", "s.toml", "--jobs", "2"),
    ],
)
def test_printed_settings_are_read_back(command, tmp_path, words):
    code, printed, _ = command(*words, "--print-config")
    assert code == 0
    file = tmp_path / "settings.toml"
    file.write_text(printed, encoding="utf-8")
    code, again, err = command(words[0], "--config", file, "--print-config")
    assert (code, err) == (0, "")
    assert tomllib.loads(again) == tomllib.loads(printed)


def test_printed_settings_hold_every_flag_that_has_a_value():
    settings = IndexSettings(guide="g", out=Path("x"), columns=IndexSettings(guide="g").columns, neighbors=3)
    read = tomllib.loads(as_toml("index", {"settings": settings}))["index"]
    assert read["out"] == "x"
    assert read["neighbors"] == 3
    assert read["negative-column"] == []
    assert "anchor-column" not in read  # no value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[index", "Expected ']'"),
        (None, "No such file"),
        ("[index]\nneighbrs = 3\n", "--neighbors"),
        ("\xff", "cannot be read as TOML"),
        ("[indx]", "no table [indx]"),
        ('[sweep]\nindex = ["i"]\n[settings]\n', "give doctor, eval, index"),
    ],
)
def test_a_faulty_config_file_is_refused(command, tmp_path, content, message):
    file = tmp_path / "f.toml"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    code, out, err = command("index", "--config", file)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(("flag", "advice"), RENAMED.items())
def test_an_old_flag_is_refused_with_what_to_do(command, tmp_path, flag, advice):
    """On the command line, in a settings file, and in every table of a sweep file."""
    file, key = tmp_path / "f.toml", flag.replace("-", "_")
    ways: list[tuple[str, tuple]] = [("", ("index", "p", f"--{flag}", "3")), ("", ("index", "p", f"--{flag}=3"))]
    ways += [(f"[index]\n{name} = 3\n", ("index", "p", "--config", file)) for name in (flag, key)]
    for table in ("[sweep]", "[settings]", "[grid]", "[[runs]]"):
        ways.append((f"{table}\n{flag} = [3]\n", ("sweep", file)))
    for content, words in ways:
        file.write_text(content)
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert " ".join(err.split()).startswith(f"error: {flag} is no setting any more")
        assert f"to do: {advice}" in " ".join(err.split())


@pytest.mark.parametrize("inside", ["", "folder"])
def test_a_file_is_no_place_for_an_index(command, tmp_path, guide_folder, held_out, inside):
    (tmp_path / "existing").write_text("mine")
    code, _, err = command("index", held_out, "--guide", guide_folder, "--out", tmp_path / "existing" / inside)
    assert code == 2
    assert "give a folder" in " ".join(err.split())
    assert (tmp_path / "existing").read_text() == "mine"


def test_help_documents_every_exit_code(command):
    family = {each.exit_code for each in vars(errors).values() if hasattr(each, "exit_code")}
    out = " ".join(command("--help")[1].split())
    for code in family | {130, 143}:
        assert f"{code} " in out.partition("Exit codes:")[2]
    for name in ("index", "train", "verify", "eval", "sweep", "doctor", "--json", "--install-completion"):
        assert name in out
    assert set(RESUME_ADVICE) <= {*cli.app}


def test_help_shows_defaults_as_they_are_typed(command):
    out = command("train", "--help")[1]
    assert "[default: guide-index]" in " ".join(out.replace("│", " ").split())
    assert "()" not in out
    assert "None" not in out


def test_completion_knows_commands_and_flags(tmp_path):
    script = cli.app.install_completion(shell="bash", output=tmp_path / "gistcache.bash", add_to_startup=False)
    for word in ("train", "sweep", "--temperature", "--json"):
        assert word in script.read_text()


def test_doctor_says_what_is_there(command):
    code, out, _ = command("doctor", "--json")
    data = json.loads(out)
    assert code == (1 if data["faults"] else 0)
    assert data["python"] == ".".join(map(str, sys.version_info[:3]))
    assert data["libraries"]["torch"].split("+")[0] == __import__("torch").__version__.split("+")[0]
    assert data["devices"][0] == "cpu"
    assert set(data["extras"]) >= {"gpu", "ray", "s3", "dev"}


def test_doctor_names_what_is_missing(command, monkeypatch):
    installed = doctor._installed()
    del installed["s3fs"]
    installed |= {"rich": "1.0", "faiss-cpu": "1.12", "faiss-gpu": "1.12"}
    monkeypatch.setattr(doctor, "_installed", lambda: installed)
    code, out, _ = command("doctor")
    out = " ".join(out.replace("│", " ").split())
    assert code == 1
    assert "rich>=14 is missing: pip install 'rich>=14'" in out
    assert "missing s3fs>=2025.3: pip install 'gistcache[s3]'" in out
    assert "faiss-cpu faiss-gpu contain the same module" in out


def test_off_a_terminal_progress_is_a_line_a_minute(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.step("embed", 100, "texts", done=10) as advance:
        for _ in range(90):
            now[0] += 2
            advance(1, "loss 2")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embed: 40 of 100 texts, 0.5 texts/s, loss 2"
    assert lines[-1] == "embed: 90 texts in 180.0 s (0.5/s), 10 from an earlier run"
    assert len(lines) == 4
