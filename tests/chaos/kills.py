"""`kill -9`, SIGTERM and Ctrl-C at random moments of `gistcache index` and `gistcache train`, and resuming after it."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

from tests.chaos.arena import Arena, digest, weights
from tests.chaos.commands import Command, finish


def kill_index(arena: Arena, times: int, number: signal.Signals, seed: int) -> Counter[str]:
    """Signal the build at random moments and run it again; counts by the step that the build had reached.

    Raises:
        AssertionError: The second run failed, wrote a finished shard again, or ended in other bytes.
    """
    chance, reached = random.Random(seed), Counter[str]()
    words, cut = arena.index_words("cut"), arena.folder / "cut"
    for _ in range(times):
        shutil.rmtree(cut, ignore_errors=True)
        command = Command(*words, cwd=arena.folder)
        command.send(number, chance.uniform(0, arena.index_seconds))
        code, output, _ = command.end()
        check_end(code, output, number, "run the same command again")
        reached[_reached(cut)] += 1
        finished = _finished_shards(cut)
        finish(*words, cwd=arena.folder)
        again = {path for path, stamp in finished.items() if _stamp(cut / path) != stamp}
        assert not again, f"written again: {again}"
        assert digest(cut) == arena.digest
    return reached


def kill_train(arena: Arena, times: int, number: signal.Signals, seed: int) -> Counter[str]:
    """Signal training at random moments and resume it; counts by what it resumed from.

    Raises:
        AssertionError: The resumed run failed or ended in other weights.
    """
    chance, reached = random.Random(seed), Counter[str]()
    words, (whole, seconds) = arena.train_words("cut-run"), arena.whole_run
    for _ in range(times):
        shutil.rmtree(arena.folder / "cut-run", ignore_errors=True)
        command = Command(*words, cwd=arena.folder)
        command.send(number, chance.uniform(0, seconds))
        code, output, _ = command.end()
        check_end(code, output, number, "--resume")
        output, _ = finish(*words, "--resume", cwd=arena.folder)
        reached[_resumed_from(output)] += 1
        assert weights(arena.folder / "cut-run") == whole
    return reached


def check_end(code: int, output: str, number: signal.Signals, words: str) -> None:
    """Check how a signal ended a process: an interrupted one says in one line how to resume.

    Python drops an interruption inside a clean-up, with a message of its own; the command then runs to its end.
    """
    assert "Traceback" not in output or "Exception ignored" in output, output
    if number == signal.SIGKILL:
        assert code in (0, -signal.SIGKILL), (code, output)
    elif code != 0:
        assert code == 128 + number, (code, output)
        assert output.strip().splitlines()[-1].startswith("stopped; "), output
        assert words in output, output


def _reached(out: Path) -> str:
    """The kind of the last shard that the build had committed."""
    if (out / "manifest.json").exists():
        return "manifest"
    journal = out / "building" / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n") if journal.exists() else []
    kinds = [line.split(b'"path": "')[1].split(b'"')[0].split(b"/")[0].decode() for line in lines if line.count(b"}")]
    return kinds[-1] if kinds else "before the first shard"


def _finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Files that the journal or the manifest records, with inode and time of change."""
    names: list[str] = []
    journal = out / "building" / "journal.jsonl"
    if journal.exists():
        names = [json.loads(line[17:])["path"] for line in journal.read_bytes().split(b"\n") if line.endswith(b"}")]
    return {name: _stamp(out / name) for name in names}


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _resumed_from(output: str) -> str:
    if "nothing to do" in output:
        return "the run had ended"
    return "no checkpoint yet" if "starts at the beginning" in output else "a checkpoint"
