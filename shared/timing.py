"""What a run costs: seconds of each step, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Timings:
    """Seconds of each step of a run, and how many texts' vectors came from where."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.texts: Mapping[str, int] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of the block to a step."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def as_json(self) -> dict[str, float]:
        """Seconds of each step."""
        return {name: round(value, 2) for name, value in self.seconds.items()}


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the memory of the parent process at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
