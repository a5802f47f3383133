"""Engines of this machine: this process alone, or several worker processes, one a GPU where there are GPUs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from ...shared.errors import GistcacheError
from ...shared.progress import Advance
from ..settings import IndexSettings
from .jobs import OUT_OF_MEMORY, Engine, Job, ShardResult, Value, Worker
from .ray import RayEngine


def engine_of(settings: IndexSettings) -> Engine:
    """The engine that the settings name."""
    if settings.engine == "ray":
        return RayEngine(settings.num_workers, settings.ray_address)
    available = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # numbers or UUIDs
    gpus = (visible.split(",") if visible else [str(number) for number in range(available)])[:available]
    count = settings.num_workers or max(1, len(gpus))
    return InProcess() if count == 1 else Processes(count, gpus)


class InProcess(Engine):
    """Computes shard after shard in this process; one thread writes while the next shard is computed."""

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``. Leaving the generator waits for the shard being written, also on an interruption."""
        writing: Future[ShardResult] | None = None
        with ThreadPoolExecutor(1) as writer:
            for number in numbers:
                value = job.compute(number, advance)
                if writing:
                    yield writing.result()
                writing = writer.submit(job.commit, number, value)
            if writing:
                yield writing.result()


class Processes(Engine):
    """Shares shards out among ``count`` processes, started for each job; they take the GPUs in turn, or share cores."""

    def __init__(self, count: int, gpus: Sequence[str]) -> None:
        threads = max(1, (os.cpu_count() or 1) // count)
        self.places = [gpus[rank % len(gpus)] if gpus else threads for rank in range(count)]

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``."""
        if len(numbers) < 2:  # one shard needs no other process
            yield from InProcess().run(job, numbers, advance)
            return
        waiting, pickled = list(reversed(numbers)), pickle.dumps(job)
        workers = dict(_start(pickled, place) for place in self.places[: len(numbers)])
        try:
            for connection in workers:
                connection.send(waiting.pop())
            busy = set(workers)
            while busy:
                for connection in busy.intersection(wait(busy)):
                    result = connection.recv()
                    if isinstance(result, GistcacheError):
                        raise result
                    if waiting:
                        connection.send(waiting.pop())
                    else:
                        busy.remove(connection)
                    advance(result.rows)
                    yield result
        except (EOFError, OSError) as error:  # the pipe's other end is closed
            raise GistcacheError("A worker was killed", where=f"one of {len(workers)}", fix=OUT_OF_MEMORY) from error
        finally:
            for connection, process in workers.items():
                connection.close()
                process.terminate()
                process.join()


def _start(pickled: bytes, place: str | int) -> tuple[Any, BaseProcess]:
    """Start a worker; returns this process's end of its pipe, and the worker.

    On a CPU workers are forked from a server that has imported the libraries and nothing else, never from this process,
    which has threads. With GPUs, where a library may ask CUDA something while it is imported, each imports them anew.
    """
    context: Any = multiprocessing.get_context("forkserver" if isinstance(place, int) else "spawn")
    loaded = {"sentence_transformers"} & sys.modules.keys()  # only where the guide is such a model
    context.set_forkserver_preload([str(__package__).replace(".run", ".build"), *loaded])
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, pickled, place), daemon=True)
    process.start()
    theirs.close()  # the worker alone has this end now, so that its death ends the pipe
    return ours, process


def _work(connection: Connection, pickled: bytes, place: str | int) -> None:
    """What a worker process does: it answers each number of a shard with the shard's result.

    Its place is the name of its GPU, or how many threads it may use. It ends when the first process closes its end of
    the pipe, or is killed; also in the middle of a shard, so that it writes no file that a newer build may be writing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers for Ctrl-C
    if isinstance(place, str):
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    else:
        torch.set_num_threads(place)

    def advance(rows: int) -> None:
        del rows
        if connection.poll():  # no number comes before the last one's result: this is the pipe's end
            raise EOFError

    worker = Worker()
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(worker.run("job", pickled, connection.recv(), advance))
