"""The `gistcache sweep` command."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import SettingsError


def sweep(file: Path, *, jobs: int = 1) -> CommandResult:
    """Train many students against one index, and rank them on held-out pairs.

    Run the same command again after an interruption or a failure: finished runs are kept, the others resume from their
    newest checkpoint. docs/COMMANDS.md describes the file.

    Parameters
    ----------
    file
        TOML file with the tables [sweep], [settings], [grid] and [[runs]], whose keys are flags of gistcache train.
    jobs
        Runs at a time, in processes that share the cores; where there are several GPUs, each has one.
    """
    from ...shared.guide_index.guide_index import GuideIndex
    from ...shared.storage.lock import folder_lock
    from .leaderboard import as_table, ranked, write_chart, write_parquet
    from .runs import train_all
    from .sweep_file import read_sweep

    if jobs < 1:
        raise SettingsError(f"{jobs} is too small", where="--jobs", fix="give 1 or more")
    shared, runs = read_sweep(file)
    GuideIndex.open(shared.index)  # one error for all runs
    with folder_lock(shared.out):
        rows = ranked(train_all(runs, jobs), shared.metric)
        write_parquet(rows, shared.out / "leaderboard.parquet")
        charted = write_chart(rows, shared.metric, shared.out / "leaderboard.html")
    best = None if rows[0]["error"] else next(run for run in runs if run.name == rows[0]["run"])
    # Into a folder of its own: in the run's own there is nothing left to do.
    out = f"--out={shared.out}/{best.name}-again" if best else ""
    again = shlex.join(["gistcache", "train", *best.words, out]) if best else ""
    failed = {row["run"]: row["error"] for row in rows if row["error"] is not None}
    figures = {
        "out": str(shared.out),
        "metric": shared.metric,
        "runs": [{name: row[name] for name in ("run", "student", shared.metric, "seconds", "error")} for row in rows],
        "best": best and {"run": best.name, "command": again},
        "chart": charted,
    }
    chart = "leaderboard.html" if charted else "no chart without pip install 'gistcache[report]'"
    lines = [f"{shared.out}: leaderboard.parquet, {chart}"]
    lines += [f"to repeat the best run:\n  {again}"] if best else []
    lines += [f"failed: {name}\n  {error}" for name, error in failed.items()]
    return CommandResult(figures, (as_table(rows, shared.metric), *map(Text, lines)), 1 if failed else 0)
