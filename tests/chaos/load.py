"""Many trainers on one index while `verify` runs in a loop: no error, and each ends where it ends alone."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.arena import Arena, weights
from tests.chaos.commands import finish


def share_index(arena: Arena, trainers: int, seconds: float) -> Counter[str]:
    """Train with ``trainers`` seeds alone, then all at once, again and again; counts of runs.

    Raises:
        AssertionError: A command failed, or a run ended in other weights than alone.
    """
    alone = [_train(arena, seed, "alone") for seed in range(trainers)]
    shutil.rmtree(f"{arena.index}.tokens")  # the first trainer writes them again
    end, counts = time.monotonic() + seconds, Counter[str]()
    lock = threading.Lock()

    def trainer(seed: int) -> None:
        while True:
            assert _train(arena, seed, "shared") == alone[seed]
            with lock:
                counts["training runs"] += 1
            if time.monotonic() > end:
                return

    def verifier() -> None:
        while time.monotonic() < end:
            finish("verify", arena.index, cwd=arena.folder)
            with lock:
                counts["verify runs"] += 1

    with ThreadPoolExecutor(trainers + 1) as pool:
        running = [pool.submit(trainer, seed) for seed in range(trainers)] + [pool.submit(verifier)]
        for each in running:
            each.result()
    return counts


def _train(arena: Arena, seed: int, where: str) -> str:
    out = arena.folder / f"{where}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    finish(*arena.train_words(out.name), "--seed", seed, cwd=arena.folder)
    return weights(out)
