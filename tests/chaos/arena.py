"""A corpus, a guide and a student to try the commands with, and the results of undisturbed commands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.chaos.commands import finish
from tests.conftest import make_model, random_pairs, write_jsonl

PAIRS, SHARD_ROWS = 400, 32
STEPS, SAVE_STEPS = 80, 8

Words = list[object]


@dataclass(frozen=True)
class Arena:
    """A folder with ``pairs.jsonl`` (with negatives, and texts of both roles), a guide and a student."""

    folder: Path
    guide: Path
    student: Path

    @classmethod
    def create(cls, folder: Path) -> Arena:
        rows = random_pairs(PAIRS, seed=77, negatives=1)
        write_jsonl(folder / "pairs.jsonl", [*rows, {"anchor": rows[0]["positive"], "positive": rows[1]["anchor"]}])
        guide = make_model(folder / "guide", dim=32, seed=1)
        return cls(folder, guide, make_model(folder / "student", dim=16, layers=4, seed=2))

    def index_words(self, out: str) -> Words:
        """`gistcache index` with shards small enough that there are many."""
        words: Words = ["index", "pairs.jsonl", "--guide", self.guide, "--out", out]
        return [*words, "--shard-rows", SHARD_ROWS, "--neighbors", 5]

    def train_words(self, out: str, index: Path | None = None) -> Words:
        """`gistcache train` with a checkpoint every few steps; on the undisturbed index by default."""
        words: Words = ["train", "--index", index or self.index, "--student", self.student, "--out", out]
        sizes: Words = ["--batch-size", 16, "--max-steps", STEPS, "--save-steps", SAVE_STEPS]
        return [*words, "--learning-rate", 1e-3, *sizes]

    @cached_property
    def _built(self) -> tuple[Path, float]:
        _, seconds = finish(*self.index_words("whole"), cwd=self.folder)
        return self.folder / "whole", seconds

    @property
    def index(self) -> Path:
        """The undisturbed index."""
        return self._built[0]

    @property
    def index_seconds(self) -> float:
        """Seconds of the undisturbed build."""
        return self._built[1]

    @cached_property
    def digest(self) -> dict[str, str]:
        """Of the undisturbed index."""
        return digest(self.index)

    @cached_property
    def whole_run(self) -> tuple[str, float]:
        """Weights of the undisturbed run, and the seconds it took."""
        _, seconds = finish(*self.train_words("whole-run"), cwd=self.folder)
        return weights(self.folder / "whole-run"), seconds


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(run: Path) -> str:
    """SHA-256 of a run's student."""
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
