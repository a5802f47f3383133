"""The runs of a sweep, each a `gistcache train` in a process of its own; one that fails does not stop the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from ...shared.errors import GistcacheError
from ...shared.progress import console, step
from ...shared.storage.integrity import parse_object
from ..run.output_folder import METRICS, SWEEP_LOG
from .sweep_file import Run

LAST_LINES = 5
MOST_TOLD = 2_000


class Ended(NamedTuple):
    """How a run of the sweep ended: with metrics, or with an error."""

    run: Run
    metrics: dict[str, Any] | None
    error: str | None = None


def train_all(runs: Sequence[Run], jobs: int) -> list[Ended]:
    """Train every run that is not finished, ``jobs`` at a time; in the order of ``runs``.

    Ctrl-C and SIGTERM tell the runs to end, and wait for their checkpoints.
    """
    ended = {each.run.name: each for each in _kept(runs)}
    waiting = [run for run in runs if run.name not in ended]
    children = _Children(jobs)
    with step("sweep", len(runs), "runs", done=len(ended)) as advance, ThreadPoolExecutor(jobs) as pool:
        try:
            at_work = {pool.submit(children.train, run) for run in waiting}
            while at_work:  # woken every second: a signal just before it falls asleep would be slept through
                done, at_work = wait(at_work, timeout=1, return_when=FIRST_COMPLETED)
                for each in (future.result() for future in done):
                    ended[each.run.name] = each
                    console.print(f"{each.run.name}: {'failed' if each.error else 'trained'}", highlight=False)
                    advance(1)
        except KeyboardInterrupt:
            children.tell_to_end()
            pool.shutdown(cancel_futures=True)
            raise
    return [ended[run.name] for run in runs]


def _kept(runs: Sequence[Run]) -> Iterator[Ended]:
    """Runs that need no training: finished before, or refused because their folder holds something else."""
    from ..run.run import finished_metrics  # see command.py

    for run in runs:
        try:
            metrics = finished_metrics(run.settings)
        except GistcacheError as error:
            yield Ended(run, None, str(error))
        else:
            if metrics:
                yield Ended(run, metrics)


class _Children:
    """The processes at work: a share of the threads each, and a GPU each where there are several."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(jobs):
            self._slots.put(slot)
        self._lock, self._at_work, self._stopped = threading.Lock(), set[subprocess.Popen](), False

    def train(self, run: Run) -> Ended:
        """Train one run to its end."""
        slot, log = self._slots.get(), run.settings.out / SWEEP_LOG
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as said:
                begun = said.tell()
                code = self._ended(run, said.fileno(), slot)
        except OSError as error:
            return Ended(run, None, str(error))
        finally:
            self._slots.put(slot)
        if code == 0 and (run.settings.out / METRICS).is_file():
            return Ended(run, parse_object(run.settings.out / METRICS, "trained model's metrics.json"))
        return Ended(run, None, f"{_reason(code, log, begun)}\n  log: {log}")

    def tell_to_end(self) -> None:
        """Let each process end after its step, with a checkpoint; no other starts."""
        with self._lock:
            self._stopped = True
            for child in self._at_work:
                child.terminate()

    def _ended(self, run: Run, said: int, slot: int) -> int:
        command = [sys.executable, "-m", str(__package__).rpartition(".")[0], *run.words(), "--resume"]
        with self._lock:
            if self._stopped:
                return 0
            # In a session of its own, so that Ctrl-C on the terminal reaches it as a request for a checkpoint.
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self._env(slot), start_new_session=True
            )
            self._at_work.add(child)
        code = child.wait()
        with self._lock:
            self._at_work.discard(child)
        return code

    def _env(self, slot: int) -> dict[str, str]:
        env = dict(os.environ)
        if self._jobs > 1:
            threads = str(max(1, (os.cpu_count() or 1) // self._jobs))
            env = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads} | env
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
        return env | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {})


def _reason(code: int, log: Path, begun: int) -> str:
    """Why a run has not finished: its own error, or the last lines that it wrote."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    with log.open("rb") as file:
        file.seek(begun)
        said = file.read().decode("utf-8", "replace").strip()
    if code == 0:
        return "told to end before it had finished"
    found = said.rpartition("error: ")[2] if "error: " in said else "\n".join(said.splitlines()[-LAST_LINES:])
    return found[:MOST_TOLD] or f"ended with exit code {code}"
