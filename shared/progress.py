"""Progress of long steps: a bar with rate and time left on a terminal, a plain line a minute elsewhere.

All of it goes to stderr; what a command has found out goes to stdout (see ``outcome``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# A log of CI keeps every frame of a bar, even where it is written to something like a terminal.
console = Console(
    stderr=True, soft_wrap=not sys.stderr.isatty(), force_interactive=False if os.environ.get("CI") else None
)
LINE_SECONDS = 60.0


Advance = Callable[[int], None]


class NotedAdvance(Protocol):
    """Tells a step that ``more`` units are done; ``note`` stands beside the rate."""

    def __call__(self, more: int, note: str = "") -> None: ...  # noqa: D102


def shows_bars() -> bool:
    """Whether something that is redrawn has a place here: on a terminal, unless --quiet."""
    return console.is_interactive and not console.quiet


def waiting(name: str) -> AbstractContextManager[object]:
    """Show that something of unknown length is at work, where that has a place."""
    return console.status(name) if shows_bars() else nullcontext()


@contextmanager
def step(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[NotedAdvance]:
    """Show a step of ``total`` units, ``done`` of which an earlier run has finished; yields ``advance(count)``.

    A step whose length nobody knows has no total: it shows count and rate.
    """
    started = told = time.monotonic()
    count = 0
    bar = Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not shows_bars(),
        transient=True,
    )
    with bar:
        task = bar.add_task(name, total=total, completed=done, rate="")

        def advance(more: int, note: str = "") -> None:
            nonlocal count, told
            count += more
            now = time.monotonic()
            rate = f"{_rate(count, now - started)} {unit}/s{note and ', ' + note}"
            bar.update(task, advance=more, rate=rate)
            if bar.disable and now - told >= LINE_SECONDS:
                told = now
                of_total = f" of {total:,}" if total else ""
                console.print(f"{name}: {done + count:,}{of_total} {unit}, {rate}", highlight=False)

        yield advance
    seconds = time.monotonic() - started
    kept = f", {done:,} kept from before" if done else ""
    console.print(f"{name}: {count:,} {unit} in {seconds:,.1f} s ({_rate(count, seconds)}/s){kept}", highlight=False)


def _rate(count: int, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
