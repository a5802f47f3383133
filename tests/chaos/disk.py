"""A disk that fills up while shards and checkpoints are written, on a small file system in memory."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.arena import Arena, Words, digest, weights
from tests.chaos.commands import Command, finish

ROOM = "512m"


def can_mount() -> bool:
    """Whether this process may mount a file system: root may, in most containers it may not."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with small_disk(Path(place), 2**20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at ``place``."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_room(place: Path) -> None:
    """Enlarge the file system."""
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(place)], check=True)


def fill_index(arena: Arena, times: int, seed: int) -> Counter[str]:
    """Build on disks of random sizes, then again with room; counts by whether the first try found room.

    Raises:
        AssertionError: The error was not clear, or the end differs from an undisturbed build.
    """
    chance, ends, disk = random.Random(seed), Counter[str](), arena.folder / "disk"
    words, size = arena.index_words("disk/index"), _bytes_of(arena.index)
    for _ in range(times):
        with small_disk(disk, chance.randrange(8192, 4 * size)):
            ends[_first_try(words, arena.folder)] += 1
            make_room(disk)
            finish(*words, cwd=arena.folder)
            assert digest(disk / "index") == arena.digest
    return ends


def fill_train(arena: Arena, times: int, seed: int) -> Counter[str]:
    """As ``fill_index``, for training with checkpoints."""
    chance, ends, disk = random.Random(seed), Counter[str](), arena.folder / "disk"
    words, (whole, _) = arena.train_words("disk/run"), arena.whole_run
    size = _bytes_of(arena.folder / "whole-run")
    for _ in range(times):
        with small_disk(disk, chance.randrange(8192, 2 * size)):
            ends[_first_try(words, arena.folder)] += 1
            make_room(disk)
            finish(*words, "--resume", cwd=arena.folder)
            assert weights(disk / "run") == whole
    return ends


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _first_try(words: Words, folder: Path) -> str:
    code, output, _ = Command(*words, cwd=folder).end()
    if code == 0:
        return "had room"
    assert code == 1, (code, output)
    assert "Traceback" not in output, output
    assert re.search("No space left|cannot be saved|disk cannot take", output), output
    assert "same command" in output, output
    return "found no room"


def train_from_read_only(arena: Arena) -> None:
    """Train from an index on a file system that cannot be written.

    Raises:
        AssertionError: The run failed or ended in other weights than from a folder that can be written.
    """
    index, disk = arena.index, arena.folder / "disk"
    with small_disk(disk, 2**26):
        shutil.copytree(index, disk / "index")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        finish("verify", "disk/index", cwd=arena.folder)
        finish(*arena.train_words("guarded-run", disk / "index"), cwd=arena.folder)
    assert weights(arena.folder / "guarded-run") == arena.whole_run[0]
