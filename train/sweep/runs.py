"""The runs of a sweep, each a `gistcache train` in a process of its own; one that fails does not stop the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ...shared.errors import GistcacheError
from ...shared.progress import console, step
from ...shared.storage.integrity import parse_object
from ..run.output_folder import METRICS, SWEEP_LOG
from ..run.run import finished_metrics
from .sweep_file import Run

POLL_SECONDS = 0.1
LAST_LINES = 5


class Result(NamedTuple):
    """A run with its metrics, or with the error that ended it."""

    run: Run
    metrics: dict[str, Any] | None
    error: str | None = None


def train_all(runs: Sequence[Run], jobs: int) -> list[Result]:
    """Train every run that is not finished, ``jobs`` at a time; Ctrl-C and SIGTERM let them write a checkpoint."""
    results = {run.name: result for run in runs if (result := _finished(run))}
    queue = [run for run in runs if run.name not in results]
    active: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}  # by slot: a share of the threads, and a GPU
    with step("sweep", len(runs), "runs", done=len(results)) as advance:
        try:
            with _deferred_signals() as received:
                while not received and (queue or active):
                    for slot in [slot for slot in range(jobs) if slot not in active][: len(queue)]:
                        run = queue.pop(0)
                        active[slot] = run, _start(run, slot, jobs)
                    time.sleep(POLL_SECONDS)
                    for slot, (run, process) in list(active.items()):
                        if process.poll() is not None:
                            del active[slot]
                            results[run.name] = result = _result(run, process.returncode)
                            console.print(f"{run.name}: {'failed' if result.error else 'trained'}", highlight=False)
                            advance(1)
        finally:
            for _, process in active.values():
                process.terminate()
            for _, process in active.values():
                process.wait()
    return [results[run.name] for run in runs]


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Handle Ctrl-C and SIGTERM after the block, so that no process is started and then lost; yields those received."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)


def _finished(run: Run) -> Result | None:
    """The result of a run that was finished before, or whose folder or inputs cannot be used; None for others."""
    try:
        metrics = finished_metrics(run.settings)
        run.settings.out.mkdir(parents=True, exist_ok=True)
    except (GistcacheError, OSError) as error:
        return Result(run, None, str(error))
    return Result(run, metrics) if metrics else None


def _start(run: Run, slot: int, jobs: int) -> subprocess.Popen[bytes]:
    out, train = run.settings.out, str(__package__).rpartition(".")[0]
    command = [sys.executable, "-m", train, *run.words, f"--out={out}", "--resume"]
    with (out / SWEEP_LOG).open("wb") as log:
        # A session of its own keeps Ctrl-C on the terminal from the run, which is sent SIGTERM instead.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_env(slot, jobs), start_new_session=True
        )


def _env(slot: int, jobs: int) -> dict[str, str]:
    """The environment with this slot's share of the threads, unless that is set, and one of the GPUs."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    env = ({"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads} if jobs > 1 else {}) | dict(os.environ)
    gpus = env.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return env | ({"CUDA_VISIBLE_DEVICES": gpus.split(",")[slot % (gpus.count(",") + 1)]} if "," in gpus else {})


def _result(run: Run, code: int) -> Result:
    """The result of a run whose process has ended; of one that failed, its own error or the end of its log."""
    metrics, log = run.settings.out / METRICS, run.settings.out / SWEEP_LOG
    if code == 0 and metrics.is_file():
        return Result(run, parse_object(metrics, "trained model's metrics.json"))
    end = "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:])
    reason = end.rpartition("error: ")[2] or f"ended with exit code {code} before it had finished"
    if code < 0:
        reason = f"ended by {signal.Signals(-code).name}"
    return Result(run, None, f"{reason}\n  log: {log}")
