"""Progress of long steps: a bar with rate and time left on a terminal, one line a step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, soft_wrap=not sys.stderr.isatty())

Advance = Callable[[int], None]


@contextmanager
def step(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show a step of ``total`` units, ``done`` of which an earlier run has finished; yields ``advance(count)``.

    A step whose length nobody knows has no total: it shows count and rate.
    """
    started, count = time.monotonic(), 0
    bar = Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(name, total=total, completed=done, rate="")

        def advance(more: int) -> None:
            nonlocal count
            count += more
            bar.update(task, advance=more, rate=f"{count / max(time.monotonic() - started, 1e-9):,.0f} {unit}/s")

        yield advance
    seconds = time.monotonic() - started
    kept = f", {done:,} kept from before" if done else ""
    console.print(
        f"{name}: {count:,} {unit} in {seconds:,.1f} s ({count / max(seconds, 1e-9):,.0f}/s){kept}", highlight=False
    )
