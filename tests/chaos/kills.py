"""`kill -9`, SIGTERM and Ctrl-C at random moments of `gistcache index` and `gistcache train`, and going on after it."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.commands import Command, finish
from tests.conftest import random_pairs, write_jsonl

PAIRS, PART_ROWS = 400, 32
STEPS, SAVE_STEPS = 80, 8

Words = list[object]


def index_words(guide: Path, out: str) -> Words:
    """`gistcache index` into parts small enough that there are many."""
    return ["index", "pairs.jsonl", "--guide", guide, "--out", out, "--part-rows", PART_ROWS, "--neighbors", 5]


def train_words(index: Path, student: Path, out: str) -> Words:
    """`gistcache train` with a checkpoint every few steps."""
    sizes = ["--batch-size", 16, "--max-steps", STEPS, "--save-steps", SAVE_STEPS]
    return ["train", "--index", index, "--student", student, "--out", out, "--learning-rate", 1e-3, *sizes]


def write_corpus(folder: Path) -> None:
    """Pairs with negatives and with texts of both roles."""
    rows = random_pairs(PAIRS, seed=77, negatives=1)
    write_jsonl(folder / "pairs.jsonl", [*rows, {"anchor": rows[0]["positive"], "positive": rows[1]["anchor"]}])


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_index(folder: Path, guide: Path, times: int, number: signal.Signals, seed: int) -> Counter[str]:
    """Signal the build at random moments and run it again; counts by what had been reached.

    Raises:
        AssertionError: The second run failed, made a finished part again, or ended in other bytes.
    """
    write_corpus(folder)
    shutil.rmtree(folder / "whole", ignore_errors=True)
    _, seconds = finish(*index_words(guide, "whole"), cwd=folder)
    whole, chance, reached = digest(folder / "whole"), random.Random(seed), Counter[str]()
    for _ in range(times):
        shutil.rmtree(folder / "cut", ignore_errors=True)
        command = Command(*index_words(guide, "cut"), cwd=folder)
        command.send(number, chance.uniform(0, seconds))
        code, said, _ = command.end()
        check_end(code, said, number, "run the same command again")
        reached[_reached(folder / "cut")] += 1
        finished = _finished_parts(folder / "cut")
        finish(*index_words(guide, "cut"), cwd=folder)
        again = {path for path, stamp in finished.items() if _stamp(folder / "cut" / path) != stamp}
        assert not again, f"made again: {again}"
        assert digest(folder / "cut") == whole
    return reached


def kill_train(folder: Path, index: Path, student: Path, times: int, number: signal.Signals, seed: int) -> Counter[str]:
    """Signal training at random moments and resume it; counts by the checkpoint that was gone on from.

    Raises:
        AssertionError: The resumed run failed or ended in other weights.
    """
    shutil.rmtree(folder / "whole-run", ignore_errors=True)
    _, seconds = finish(*train_words(index, student, "whole-run"), cwd=folder)
    whole, chance, reached = weights(folder / "whole-run"), random.Random(seed), Counter[str]()
    for _ in range(times):
        shutil.rmtree(folder / "cut-run", ignore_errors=True)
        command = Command(*train_words(index, student, "cut-run"), cwd=folder)
        command.send(number, chance.uniform(0, seconds))
        code, said, _ = command.end()
        check_end(code, said, number, "--resume")
        said, _ = finish(*train_words(index, student, "cut-run"), "--resume", cwd=folder)
        reached[_resumed_from(said)] += 1
        assert weights(folder / "cut-run") == whole
    return reached


def check_end(code: int, said: str, number: signal.Signals, words: str) -> None:
    """A killed process says nothing; an interrupted one says in one line how to go on; one that was done, is done."""
    assert "Traceback" not in said, said
    if number == signal.SIGKILL:
        assert code in (0, -signal.SIGKILL), (code, said)
    elif code != 0:
        assert code == 128 + number, (code, said)
        assert said.strip().splitlines()[-1].startswith("stopped; "), said
        assert words in said, said


def _reached(out: Path) -> str:
    """The last step of the build that had committed a part."""
    if (out / "manifest.json").exists():
        return "manifest"
    journal = out / "building" / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n") if journal.exists() else []
    kinds = [line.split(b'"path": "')[1].split(b'"')[0].split(b"/")[0].decode() for line in lines if line.count(b"}")]
    return kinds[-1] if kinds else "before the first part"


def _finished_parts(out: Path) -> dict[str, tuple[int, int]]:
    """Files that the journal or the manifest records, with inode and time of change."""
    names: list[str] = []
    journal = out / "building" / "journal.jsonl"
    if journal.exists():
        names = [json.loads(line[17:])["path"] for line in journal.read_bytes().split(b"\n") if line.endswith(b"}")]
    return {name: _stamp(out / name) for name in names}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def _resumed_from(said: str) -> str:
    marks: dict[str, Callable[[], str]] = {
        "nothing to do": lambda: "the run had ended",
        "starts at the beginning": lambda: "no checkpoint yet",
        "going on from": lambda: "a checkpoint",
    }
    return next(make() for mark, make in marks.items() if mark in said)
