"""Progress of long steps, on stderr: a bar with rate and remaining time on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# A CI log keeps every frame of a bar, even where it is written to something like a terminal.
console = Console(
    stderr=True, soft_wrap=not sys.stderr.isatty(), force_interactive=False if os.environ.get("CI") else None
)
LINE_SECONDS = 60.0

Advance = Callable[..., None]


def shows_bars() -> bool:
    """Whether bars can be shown: on a terminal, without --quiet."""
    return console.is_interactive and not console.quiet


def spinner(name: str) -> AbstractContextManager[object]:
    """Show on a terminal that work of unknown length is under way."""
    return console.status(name) if shows_bars() else nullcontext()


@contextmanager
def step(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show the progress of a step through ``total`` units (None: unknown), of which an earlier run has ``done`` some.

    Yields ``advance(count, note="")``: so many more are done; the note is shown beside the rate.
    """
    started = last_line = time.monotonic()
    finished = 0
    columns = TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not shows_bars(), transient=True)
    with bar:
        task = bar.add_task(name, total=total, completed=done, rate="")

        def advance(count: int, note: str = "") -> None:
            nonlocal finished, last_line
            finished += count
            now = time.monotonic()
            rate = f"{_rate(finished, now - started)} {unit}/s{note and ', ' + note}"
            bar.update(task, advance=count, rate=rate)
            if bar.disable and now - last_line >= LINE_SECONDS:
                last_line = now
                of_total = f" of {total:,}" if total else ""
                console.print(f"{name}: {done + finished:,}{of_total} {unit}, {rate}", highlight=False)

        yield advance
    seconds = time.monotonic() - started
    earlier = f", {done:,} from an earlier run" if done else ""
    rate = _rate(finished, seconds)
    console.print(f"{name}: {finished:,} {unit} in {seconds:,.1f} s ({rate}/s){earlier}", highlight=False)


def _rate(count: int, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
