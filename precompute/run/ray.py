"""The engine that shares shards out over a Ray cluster: a pool of Ray's actors."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import uuid
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ...shared.errors import GistcacheError, SettingsError, first_line
from ...shared.progress import Advance, console
from .jobs import OUT_OF_MEMORY, Engine, Job, ShardResult, Value, Worker

SHARD_RETRIES = 3


def load_ray() -> ModuleType:
    """Ray's own module; raises SettingsError where it is not installed, or not whole."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.util
    except ImportError as error:
        what = f"Ray is not installed, or not whole: {error}"
        raise SettingsError(what, where="--engine ray", fix="pip install 'gistcache[ray]'") from error
    return ray


class RayEngine(Engine):
    """An actor for each GPU of the cluster, or for each CPU where it has no GPU.

    Actors live until the engine is closed, so that the libraries are imported once. Ray restarts an actor that dies,
    on another machine if need be, and gives it its shard again.

    Args:
        workers: Most actors; None for one a GPU, or one a CPU.
        address: The cluster to join; None starts one on this machine.

    Raises:
        SettingsError: Ray is not installed, or not whole.
        GistcacheError: The cluster cannot be reached.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        self._ray = ray = load_ray()
        if not ray.is_initialized():
            self._join(workers, address)
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        self.workers = min(workers or sys.maxsize, gpus or max(1, cpus))  # an actor too many would wait for a place
        console.print(f"Ray: {self.workers} workers, {gpus} GPUs in the cluster", highlight=False)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        self._remote = ray.remote(max_restarts=-1, max_task_retries=SHARD_RETRIES, **needs)(Worker)
        self._actors: list[Any] = []

    def _join(self, workers: int | None, address: str | None) -> None:
        local = {} if address else {"num_cpus": max(workers or 1, os.cpu_count() or 1), "include_dashboard": False}
        try:
            self._ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise GistcacheError(
                f"The Ray cluster cannot be joined: {first_line(error)}",
                where=f"--ray-address {address}",
                fix="check the address; `ray status` on the cluster's head says whether it runs",
            ) from error

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """See ``Engine``; raises GistcacheError where a worker reports one, or each worker dies over the same shard."""
        count = min(self.workers, len(numbers))
        self._actors += [self._remote.remote() for _ in range(count - len(self._actors))]
        key, pickled = uuid.uuid4().hex, self._ray.put(pickle.dumps(job))
        pool = self._ray.util.ActorPool(self._actors[:count])
        try:
            for result in pool.map_unordered(lambda actor, number: actor.run.remote(key, pickled, number), numbers):
                if isinstance(result, GistcacheError):
                    raise result
                advance(result.rows)
                yield result
        except BaseException as error:
            self.close()
            if not isinstance(error, self._ray.exceptions.RayActorError):
                raise
            what = f"A worker died {SHARD_RETRIES + 1} times over the same shard"
            raise GistcacheError(what, where=f"Ray: {first_line(error)}", fix=OUT_OF_MEMORY) from error

    def close(self) -> None:
        """See ``Engine``."""
        for actor in self._actors if self._ray.is_initialized() else ():
            self._ray.kill(actor)
        self._actors.clear()
