"""Where the parts of a step are computed: in this process, or in several on this machine. Ray is in ray_engine.py."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ...shared.errors import GistcacheError
from ...shared.progress import Advance
from ..settings import IndexSettings
from .jobs import Job, ShardResult, Value

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized


class Engine(Protocol):
    """Runs jobs."""

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """Make parts, each whole or not at all; yields them as they come, in any order."""
        ...


def engine_of(settings: IndexSettings) -> Engine:
    """The engine that the settings name."""
    if settings.engine == "ray":
        from .ray import RayEngine  # an extra

        return RayEngine(settings.num_workers, settings.ray_address)
    gpus = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    count = settings.num_workers or max(1, gpus)
    return InProcess() if count == 1 else Processes(count, gpus)


class InProcess:
    """Part after part, here; one thread writes while the next part is computed."""

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``. Leaving the generator waits for what is being written, also on an interruption."""
        writing: Future[ShardResult] | None = None
        with ThreadPoolExecutor(1) as writer:
            for number in numbers:
                value = job.compute(number, advance)
                if writing:
                    yield writing.result()
                writing = writer.submit(job.commit, number, value)
            if writing:
                yield writing.result()


class Processes:
    """Parts shared out among processes of this machine, one a GPU where there are GPUs."""

    def __init__(self, count: int, gpus: int) -> None:
        self.count, self.gpus = count, gpus

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``."""
        if len(numbers) < 2:  # one part needs no other process
            yield from InProcess().run(job, numbers, advance)
            return
        context = _fresh_processes(self.gpus)
        turn = context.Value("i", 0)
        count = min(self.count, len(numbers)) or 1
        threads = max(1, (os.cpu_count() or 1) // count)
        with ProcessPoolExecutor(count, context, _begin, (pickle.dumps(job), turn, self.gpus, threads)) as pool:
            try:
                for future in as_completed([pool.submit(_make, number) for number in numbers]):
                    made = future.result()
                    advance(made.record.rows if made.record else 0)
                    yield made
            except BrokenProcessPool as error:
                raise GistcacheError(
                    "A worker process was killed",
                    where=f"one of {count}",
                    fix="the machine may be short of memory: give a smaller --num-workers, then run the same command "
                    "again; finished parts are kept",
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                raise


def _fresh_processes(gpus: int) -> BaseContext:
    """How workers begin: not from this process, as one with threads, or with CUDA, must not be forked.

    On a CPU they are forked from a process that has the libraries and nothing else, which every step of a build
    shares. With GPUs, where a library may ask CUDA something while it is imported, or on Windows, each loads them anew.
    """
    if gpus or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    loaded = [name for name in ("sentence_transformers",) if name in sys.modules]  # only if the guide is such a model
    context.set_forkserver_preload([str(__package__).replace(".run", ".build"), *loaded])
    return context


_pickled: list[bytes] = []  # of a worker process: what it was started with ...
_job: list[Job[Any]] = []  # ... and what that is, once it was needed


def _begin(pickled: bytes, turn: Synchronized[int], gpus: int, threads: int) -> None:
    """Begin a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers for Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpus:
        with turn.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = _visible()[turn.value % gpus]
            turn.value += 1
    else:
        torch.set_num_threads(threads)
    _pickled.append(pickled)


def _visible() -> list[str]:
    """The GPUs of this machine by the names CUDA takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _make(number: int) -> ShardResult:
    if not _job:
        _job.append(pickle.loads(_pickled[0]))  # from the first process, never from a file
    job = _job[0]
    return job.commit(number, job.compute(number, lambda rows: None))
