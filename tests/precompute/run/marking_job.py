"""A job whose shards leave marks, and kill or keep their process; it imports little, so that workers start soon."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from gistcache.precompute.run.jobs import ShardResult


@dataclass(frozen=True)
class MarkingJob:
    """Each shard leaves its process's number in a folder; where that is full, one of them kills it or waits."""

    folder: Path
    kills: bool = False
    waits: bool = False

    def compute(self, number, advance):
        (self.folder / f"{os.getpid()}-{number}-{time.monotonic_ns()}").touch()
        if self.kills and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while self.waits:
            time.sleep(0.01)
            advance(1)
        return number

    def commit(self, number, value):
        return ShardResult(number, None, {"value": value})


def workers_in(folder: Path) -> set[int]:
    return {int(path.name.split("-")[0]) for path in folder.iterdir()}


def wait_for_ever(folder: Path):
    """What a first process does that waits for its two workers."""
    from gistcache.precompute.run.local import Processes

    list(Processes(2, []).run(MarkingJob(folder, waits=True), range(2), lambda rows: None))
