"""The `gistcache sweep` command."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import SettingsError


def sweep(file: Path, *, jobs: int = 1) -> CommandResult:
    """Train many students against one index, and rank them on held-out pairs.

    The same command again keeps finished runs and resumes the others. docs/COMMANDS.md describes the file.

    Parameters
    ----------
    file
        TOML file with the tables [sweep], [settings], [grid] and [[runs]], whose keys are flags of gistcache train.
    jobs
        Runs at a time, in processes that share the cores; where there are several GPUs, each has one.
    """
    from ...shared.guide_index.guide_index import GuideIndex
    from ...shared.storage.lock import folder_lock
    from .leaderboard import as_table, ranked, write_parquet
    from .runs import train_all
    from .sweep_file import read_sweep

    if jobs < 1:
        raise SettingsError(f"{jobs} is too small", where="--jobs", fix="give 1 or more")
    shared, runs = read_sweep(file)
    GuideIndex.open(shared.index)  # one error for all runs
    with folder_lock(shared.out):
        rows = ranked(train_all(runs, jobs), shared.metric)
        write_parquet(rows, shared.out / "leaderboard.parquet")
    summary = [{name: row[name] for name in ("run", "student", shared.metric, "seconds", "error")} for row in rows]
    lines, best = [f"{shared.out}: leaderboard.parquet"], None
    if not rows[0]["error"]:
        run = next(run for run in runs if run.name == rows[0]["run"])
        # Into a folder of its own: in the run's own there is nothing left to do.
        command = shlex.join(["gistcache", "train", *run.words, f"--out={run.settings.out}-again"])
        best = {"run": run.name, "command": command}
        lines.append(f"to repeat the best run:\n  {command}")
    lines += [f"failed: {row['run']}\n  {row['error']}" for row in rows if row["error"]]
    data = {"out": str(shared.out), "metric": shared.metric, "runs": summary, "best": best}
    return CommandResult(data, (as_table(rows, shared.metric), *map(Text, lines)), int(bool(rows[-1]["error"])))
