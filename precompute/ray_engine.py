"""Parts shared out over a Ray cluster: Ray Data with a pool of actors, each of which holds one copy of the job."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ..shared.errors import GistcacheError, SettingsError
from ..shared.progress import Advance, console
from .work import Job, Made, Value

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
    """An actor a GPU of the cluster, or a CPU where it has no GPU.

    Ray starts an actor that dies again, and gives its part to another: a part in flight is lost, and nothing else.

    Args:
        workers: How many actors; None for one a GPU, or one a CPU.
        address: The cluster to join; None starts one on this machine.

    Raises:
        SettingsError: Ray is not installed.
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

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[Made]:
        """See ``Engine``."""
        import ray

        if not numbers:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        count = min(self.workers, len(numbers))
        results = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers)).map(
            _Worker,  # type: ignore[arg-type]
            fn_constructor_args=(pickle.dumps(job),),
            compute=ray.data.ActorPoolStrategy(size=count),
            num_gpus=1 if self.gpus else None,
            num_cpus=None if self.gpus else 1,
        )
        try:
            for row in results.iter_rows():
                made = pickle.loads(row["made"])
                if isinstance(made, GistcacheError):
                    raise made
                advance(made.record.rows if made.record else 0)
                yield made
        finally:
            del results
            _wait_for_ray_data()


def _join(ray: ModuleType, workers: int | None, address: str | None) -> None:
    """Join a cluster, or start one here with a core to spare for Ray's own tasks."""
    cores = {} if address else {"num_cpus": max(workers or 1, os.cpu_count() or 1) + 1, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **cores)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise GistcacheError(
            f"The Ray cluster cannot be joined: {(str(error).splitlines() or [''])[0]}",
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
    """One actor."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled, self._job = pickled, None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        try:
            job: Job[Any] = self._job or pickle.loads(self._pickled)  # between processes of one run, never from a file
            self._job = job
            made: Made | GistcacheError = job.commit(number, job.compute(number, lambda rows: None))
        except (GistcacheError, OSError) as error:  # told by the first process, without Ray's tracebacks around it
            made = GistcacheError(
                f"A worker failed: {getattr(error, 'what', error)}",
                where=f"{getattr(error, 'where', '')} on {socket.gethostname()}",
                fix=getattr(error, "fix", "") or "mend it and run the same command again: finished parts are kept",
            )
        return {"made": pickle.dumps(made)}
