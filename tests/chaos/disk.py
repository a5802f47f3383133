"""A disk that fills up while parts and checkpoints are written, on a small file system in memory."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.commands import Command, finish
from tests.chaos.kills import digest, index_words, train_words, weights, write_corpus

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


def fill_index(folder: Path, guide: Path, times: int, seed: int) -> Counter[str]:
    """Build on disks of random sizes, then again with room; counts by whether the first try found room.

    Raises:
        AssertionError: The error was not clear, or the end differs from an undisturbed build.
    """
    write_corpus(folder)
    shutil.rmtree(folder / "whole", ignore_errors=True)
    finish(*index_words(guide, "whole"), cwd=folder)
    whole, chance, ends = digest(folder / "whole"), random.Random(seed), Counter[str]()
    size = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
    for _ in range(times):
        with small_disk(folder / "disk", chance.randrange(8192, 4 * size)):
            ends[_tried(index_words(guide, "disk/index"), folder)] += 1
            make_room(folder / "disk")
            finish(*index_words(guide, "disk/index"), cwd=folder)
            assert digest(folder / "disk" / "index") == whole
    return ends


def fill_train(folder: Path, index: Path, student: Path, times: int, seed: int) -> Counter[str]:
    """As ``fill_index``, for training with checkpoints."""
    shutil.rmtree(folder / "whole-run", ignore_errors=True)
    finish(*train_words(index, student, "whole-run"), cwd=folder)
    whole, chance, ends = weights(folder / "whole-run"), random.Random(seed), Counter[str]()
    size = sum(path.stat().st_size for path in (folder / "whole-run").rglob("*") if path.is_file())
    for _ in range(times):
        with small_disk(folder / "disk", chance.randrange(8192, 2 * size)):
            ends[_tried(train_words(index, student, "disk/run"), folder)] += 1
            make_room(folder / "disk")
            finish(*train_words(index, student, "disk/run"), "--resume", cwd=folder)
            assert weights(folder / "disk" / "run") == whole
    return ends


def _tried(words: list[object], folder: Path) -> str:
    code, said, _ = Command(*words, cwd=folder).end()
    if code == 0:
        return "had room"
    assert code == 1, (code, said)
    assert "Traceback" not in said, said
    assert "No space left" in said or "disk cannot take" in said, said
    assert "same command" in said, said
    return "found no room"


def train_from_read_only(folder: Path, guide: Path, student: Path) -> None:
    """Train from an index on a file system that cannot be written.

    Raises:
        AssertionError: The run failed or ended in other weights than from a folder that can be written.
    """
    write_corpus(folder)
    for name in ("whole", "plain-run", "guarded-run"):
        shutil.rmtree(folder / name, ignore_errors=True)
    finish(*index_words(guide, "whole"), cwd=folder)
    finish(*train_words(folder / "whole", student, "plain-run"), cwd=folder)
    with small_disk(folder / "disk", 2**26):
        shutil.copytree(folder / "whole", folder / "disk" / "index")
        subprocess.run(["mount", "-o", "remount,ro", str(folder / "disk")], check=True)
        finish("verify", "disk/index", cwd=folder)
        finish(*train_words(folder / "disk" / "index", student, "guarded-run"), cwd=folder)
    assert weights(folder / "guarded-run") == weights(folder / "plain-run")
