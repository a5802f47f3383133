"""Jobs: the work of one step, split into shards that any process can compute alone and write alone."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ...shared.errors import GistcacheError
from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord

Value = TypeVar("Value")

AGAIN = "then run the same command again: finished shards are kept"
OUT_OF_MEMORY = f"its machine may be short of memory: give a smaller --num-workers, {AGAIN}"


@dataclass(frozen=True)
class ShardResult:
    """A finished shard: its number in its step, its file if it has one, and stats of its computation, by name."""

    number: int
    record: FileRecord | None
    stats: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of its file."""
        return self.record.rows if self.record else 0


class Job(Protocol[Value]):
    """The work on the shards of one step. It is pickled for other processes and machines."""

    def compute(self, number: int, advance: Advance) -> Value:
        """Compute shard ``number``, calling ``advance`` with rows as they are done."""
        ...

    def commit(self, number: int, value: Value) -> ShardResult:
        """Write the shard, whole or not at all."""
        ...


class Engine:
    """Runs jobs: computes and writes the shards of a step."""

    def run(self, job: Job[Value], numbers: Sequence[int], advance: Advance) -> Iterator[ShardResult]:
        """Compute and write shards, each whole or not at all; yields their results in any order."""
        raise NotImplementedError

    def close(self) -> None:
        """End the workers that wait for another job, if there are any."""


class Worker:
    """Computes shards in a process of its own; keeps its copy of a job until it is called with another one's key."""

    _key, _job = "", None

    def run(
        self, key: str, pickled: bytes, number: int, advance: Advance = lambda rows: None
    ) -> ShardResult | GistcacheError:
        """Compute and write a shard; returns an error that the user can act on, for the first process to raise.

        ``pickled`` is the job ``key``, sent by the first process of the same build and never read from a file.
        """
        try:
            if key != self._key:
                self._job = None  # its guide is freed before the next one is loaded
                self._key, self._job = key, pickle.loads(pickled)
            job: Any = self._job
            return job.commit(number, job.compute(number, advance))
        except GistcacheError as error:
            error.where += f" on {socket.gethostname()}"
            return error
        except OSError as error:
            return GistcacheError(f"A worker failed: {error}", where=socket.gethostname(), fix=f"mend it, {AGAIN}")
