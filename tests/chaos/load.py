"""Many trainers on one index while `verify` runs in a loop: no error, and each ends where it ends alone."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.commands import finish
from tests.chaos.kills import index_words, train_words, weights, write_corpus


def share_index(folder: Path, guide: Path, student: Path, trainers: int, seconds: float) -> Counter[str]:
    """Train with ``trainers`` seeds alone, then all at once, again and again; counts of runs.

    Raises:
        AssertionError: A command failed, or a run ended in other weights than alone.
    """
    write_corpus(folder)
    shutil.rmtree(folder / "whole", ignore_errors=True)
    finish(*index_words(guide, "whole"), cwd=folder)
    alone = [_trained(folder, student, seed, "alone") for seed in range(trainers)]
    shutil.rmtree(folder / "whole.tokens")  # made again, by whoever comes first
    end, done = time.monotonic() + seconds, Counter[str]()
    counted = threading.Lock()

    def trainer(seed: int) -> None:
        while True:
            assert _trained(folder, student, seed, "shared") == alone[seed]
            with counted:
                done["training runs"] += 1
            if time.monotonic() > end:
                return

    def verifier() -> None:
        while time.monotonic() < end:
            finish("verify", "whole", cwd=folder)
            with counted:
                done["verify runs"] += 1

    with ThreadPoolExecutor(trainers + 1) as pool:
        running = [pool.submit(trainer, seed) for seed in range(trainers)] + [pool.submit(verifier)]
        for each in running:
            each.result()
    return done


def _trained(folder: Path, student: Path, seed: int, where: str) -> str:
    out = folder / f"{where}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    finish(*train_words(folder / "whole", student, out.name), "--seed", seed, cwd=folder)
    return weights(out)
