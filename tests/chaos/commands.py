"""The real command in a process of its own that can be killed at any moment.

Each process is forked from a server that has imported torch and the rest, so that a kill falls into the command's own
work and not into five seconds of imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

PRELOADED = [
    "gistcache.shared.cli.app",
    "gistcache.precompute.command",
    "gistcache.precompute.build",
    "gistcache.train.command",
    "gistcache.train.run.run",
    "gistcache.shared.cli.verify",
    "gistcache.shared.evaluation.retrieval",
    "sentence_transformers.sentence_transformer.training_args",
]
THREADS = "1"


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


CONTEXT = _context()


def start_server(cache: Path) -> None:
    """Import the libraries once; commands write their caches under ``cache``."""
    here = dict(os.environ)
    os.environ |= {
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "XDG_CACHE_HOME": str(cache / "user"),
        "OMP_NUM_THREADS": THREADS,
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }
    ensure_running()
    os.environ.clear()
    os.environ.update(here)


class Forked:
    """A running process that calls a function; its output goes to a file.

    Args:
        act: The function; can be pickled.
        arguments: What it is called with.
        cwd: The process's working directory.
        environment: Variables that the process has beyond the server's.
    """

    def __init__(
        self, act: Callable[..., None], *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.output_file = cwd / f"output-{time.monotonic_ns()}.txt"
        self._process = CONTEXT.Process(
            target=_run, args=(act, arguments, str(cwd), str(self.output_file), environment or {})
        )
        self._process.start()
        while not self.output_file.exists() and self._process.is_alive():
            time.sleep(0.0005)
        self.started = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def send(self, number: signal.Signals, after: float) -> None:
        """Send a signal so many seconds after the start, where the command still runs."""
        self._process.join(max(0.0, after - (time.monotonic() - self.started)))
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)

    def end(self, within: float | None = None) -> tuple[int, str, float]:
        """Wait; exit code (negative: the signal that killed it), output, seconds.

        After ``within`` seconds it is killed.
        """
        self._process.join(within)
        if self.alive:
            self._process.kill()
            self._process.join()
        code = self.output_file.with_suffix(".code")
        # Threads that start processes poll each other's, and one of them then finds no exit code: the file comes first.
        written = code.read_text() if code.exists() else ""
        exit_code = int(written) if written else self._process.exitcode or 0
        code.unlink(missing_ok=True)
        output = self.output_file.read_text(encoding="utf-8", errors="replace") if self.output_file.exists() else ""
        self.output_file.unlink(missing_ok=True)
        return exit_code, output, time.monotonic() - self.started


class Command(Forked):
    """``gistcache`` with its words, running."""

    def __init__(self, *words: object, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(gistcache, [str(word) for word in words], cwd=cwd, environment=environment)


def finish(*words: object, cwd: Path, environment: Mapping[str, str] | None = None) -> tuple[str, float]:
    """Run a command that must succeed: its output, seconds."""
    code, output, seconds = Command(*words, cwd=cwd, environment=environment).end()
    if code != 0:
        raise AssertionError(f"gistcache {' '.join(map(str, words))} ended with {code}:\n{output}")
    return output, seconds


def gistcache(words: list[str]) -> None:
    """The command with its words, in this process."""
    from gistcache.shared.cli.main import main

    sys.argv = ["gistcache", *words]
    main()


def _run(
    act: Callable[..., None], arguments: Sequence[object], cwd: str, output_file: str, environment: Mapping[str, str]
) -> None:
    os.chdir(cwd)
    os.environ.update(environment)
    output = os.open(f"{output_file}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    Path(f"{output_file}.new").rename(output_file)  # from here on, signals are the command's own affair
    try:
        act(*arguments)
    except SystemExit as exit_:
        Path(output_file).with_suffix(".code").write_text(str(exit_.code or 0))
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
