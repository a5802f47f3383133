"""The `gistcache sweep` command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.storage.lock import folder_lock
from ..settings import SweepSettings
from .leaderboard import Row, ranked, table_of, write_chart, write_parquet
from .sweep_file import Run, read_sweep
from .sweep_runs import train_all


def sweep(file: Path, *, jobs: int = 1) -> CommandResult:
    """Train many students against one index, and rank them on held-out pairs.

    Run the same command again after an interruption or a failure: finished runs are kept, the others go on from their
    newest checkpoint. docs/COMMANDS.md describes the file.

    Parameters
    ----------
    file
        TOML file with the tables [sweep], [settings], [grid] and [[runs]], whose keys are flags of gistcache train.
    jobs
        Runs at a time, in processes that share the cores; where there are several GPUs, each has one.
    """
    if jobs < 1:
        raise SettingsError(f"{jobs} is too small", where="--jobs", fix="give 1 or more")
    shared, runs = read_sweep(file)
    for index in shared.index:
        GuideIndex.open(index)  # told once, and not by every run
    with folder_lock(shared.out):
        rows = ranked(train_all(runs, jobs), shared.metric)
        write_parquet(rows, shared.out / "leaderboard.parquet")
        charted = write_chart(rows, shared.metric, shared.out / "leaderboard.html")
    return _leaderboard(shared, runs, rows, charted)


def _leaderboard(shared: SweepSettings, runs: Sequence[Run], rows: Sequence[Row], charted: bool) -> CommandResult:
    """The ranked runs, where they are written, how to repeat the best, and what failed."""
    failed = {row["run"]: row["error"] for row in rows if row["error"] is not None}
    best = next((run for run in runs if run.name == rows[0]["run"] and run.name not in failed), None)
    # Into a folder of its own: in the run's there is nothing left to do.
    again = ["gistcache", "train", *best.words(shared.out / f"{best.name}-again")] if best else []
    figures = {
        "out": str(shared.out),
        "metric": shared.metric,
        "runs": [{name: row[name] for name in ("run", "student", shared.metric, "seconds", "error")} for row in rows],
        "best": best and {"run": best.name, "command": shlex.join(again)},
        "chart": charted,
    }
    chart = "leaderboard.html" if charted else "no chart without pip install 'gistcache[report]'"
    said = [f"{shared.out}: leaderboard.parquet, {chart}"]
    said += [f"to repeat the best run:\n  {shlex.join(again)}"] if best else []
    said += [f"failed: {name}\n  {error}" for name, error in failed.items()]
    return CommandResult(figures, (table_of(rows, shared.metric), *map(Text, said)), 1 if failed else 0)
