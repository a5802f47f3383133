"""Parts shared out over a Ray cluster by Ray Data: to a pool of actors, or to tasks."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from ...shared.errors import GistcacheError, SettingsError, first_line
from ...shared.progress import Advance, console
from .jobs import Job, ShardResult, Value

THREAD_SECONDS = 30


def load_ray() -> ModuleType:
    """Ray with Ray Data.

    Raises:
        SettingsError: It is not installed, or not whole.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SettingsError(
            f"Ray is not installed, or not whole: {error}",
            where="--engine ray",
            fix="pip install 'gistcache[ray]'",
        ) from error
    return ray


class RayEngine:
    """A worker a GPU of the cluster, or a CPU where it has no GPU.

    Where a guide or a GPU is held, the workers are actors, started for the step. Other parts are tasks: Ray gives them
    to processes that have served before, which need not load the libraries anew. What dies is started again, and its
    part given to another: a part in flight is lost, and nothing else.

    Args:
        workers: How many at once; None for one a GPU, or one a CPU.
        address: The cluster to join; None starts one on this machine.

    Raises:
        SettingsError: Ray is not installed, or not whole.
        GistcacheError: The cluster cannot be reached.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        ray = load_ray()
        if not ray.is_initialized():
            _join(ray, workers, address)
        held = ray.cluster_resources()
        self.gpus = int(held.get("GPU", 0))
        self.workers = workers or self.gpus or max(1, int(held.get("CPU", 1)))
        console.print(f"Ray: {self.workers} workers, {self.gpus} GPUs in the cluster", highlight=False)

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``."""
        import ray

        if not numbers:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        count = min(self.workers, len(numbers))
        pickled = pickle.dumps(job)
        parts = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        resources: dict[str, Any] = {"num_gpus": 1} if self.gpus else {"num_cpus": 1}
        if self.gpus or job.with_guide:
            pool = ray.data.ActorPoolStrategy(size=count)
            # Ray asks for a class here, which its type hints leave out.
            results = parts.map(_Worker, fn_constructor_args=(pickled,), compute=pool, **resources)  # type: ignore[arg-type]
        else:
            pool = ray.data.TaskPoolStrategy(size=count)
            results = parts.map(partial(_task, pickled), compute=pool, **resources)
        try:
            for row in results.iter_rows():
                made = pickle.loads(row["made"])
                if isinstance(made, GistcacheError):
                    raise made
                advance(made.record.rows if made.record else 0)
                yield made
        finally:
            del results, parts
            _wait_for_ray_data()


def _join(ray: ModuleType, workers: int | None, address: str | None) -> None:
    """Join a cluster, or start one here with a core to spare for Ray's own tasks."""
    cores = {} if address else {"num_cpus": max(workers or 1, os.cpu_count() or 1) + 1, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **cores)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise GistcacheError(
            f"The Ray cluster cannot be joined: {first_line(error)}",
            where=f"--ray-address {address}",
            fix="check the address; `ray status` on the cluster's head says whether it runs",
        ) from error


def _wait_for_ray_data() -> None:
    """Until Ray Data's own threads have ended: one that asks for the cluster after it is gone ends the process."""
    gc.collect()  # an iterator that was left in the middle tells its threads to end when it is collected
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None)
        if any((getattr(each, "__module__", None) or "").startswith("ray.data") for each in (type(thread), target)):
            if stop := getattr(getattr(target, "__self__", None), "stop", None):
                stop()  # a prefetcher of an iterator that was left in the middle is told by nobody else
            thread.join(THREAD_SECONDS)


class _Worker:
    """One copy of the job: an actor's, or of a process that serves tasks."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled, self._job = pickled, None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        try:
            job: Job[Any] = self._job or pickle.loads(self.pickled)  # between processes of one run, never from a file
            self._job = job
            made: ShardResult | GistcacheError = job.commit(number, job.compute(number, lambda rows: None))
        except (GistcacheError, OSError) as error:  # told by the first process, without Ray's tracebacks around it
            made = GistcacheError(
                f"A worker failed: {getattr(error, 'what', error)}",
                where=f"{getattr(error, 'where', '')} on {socket.gethostname()}",
                fix=getattr(error, "fix", "") or "mend it and run the same command again: finished parts are kept",
            )
        return {"made": pickle.dumps(made)}


_serving: list[_Worker] = []  # of a process that serves tasks: the newest job


def _task(pickled: bytes, row: dict[str, Any]) -> dict[str, Any]:
    """One part, with the copy of the job that this process has, if it has one."""
    if not _serving or _serving[0].pickled != pickled:
        _serving[:] = [_Worker(pickled)]
    return _serving[0](row)
