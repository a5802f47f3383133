"""Several measurements at a time, each in a process forked after the libraries were imported."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait


def run_at_once(act: Callable[..., object], each_with: Sequence[Sequence[object]], count: int) -> int:
    """Call a function with each set of arguments, in ``count`` processes at a time; how many of the calls failed.

    A process runs one call only; an error in one leaves the others alone. The calling process must not have used a GPU:
    a forked one could not.
    """
    context = multiprocessing.get_context("fork")
    waiting, running, failed = list(each_with), {}, 0
    while waiting or running:
        while waiting and len(running) < count:
            process = context.Process(target=act, args=waiting.pop(0))
            process.start()
            running[process.sentinel] = process
        for sentinel in wait(list(running)):
            process = running.pop(sentinel)
            process.join()
            failed += process.exitcode != 0
    return failed
