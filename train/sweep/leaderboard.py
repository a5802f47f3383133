"""The results of a sweep, ranked: as rows, and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from ...shared.cli.config_file import flatten
from ...shared.storage.files import atomic_write
from ...shared.types import METRICS
from .runs import Result

Row = dict[str, Any]
COPIED = ("parameters", "model_bytes", "texts_per_second", "peak_memory_bytes")
COPIED += ("steps", "training_loss", "removed_share")


def ranked(results: Sequence[Result], metric: str) -> list[Row]:
    """Make a row of each run, the best first and failed ones last: its quality, costs and settings."""
    rows = map(_row, results)
    return sorted(rows, key=lambda row: -math.inf if row[metric] is None else row[metric], reverse=True)


def _row(result: Result) -> Row:
    metrics = result.metrics or {"retrieval": {}, "seconds": {}}
    before, after = (metrics["retrieval"].get(f"student {when}") or {} for when in ("before", "after"))
    settings = {flag.replace("-", "_"): value for flag, value in flatten(result.run.settings)}
    return {
        "run": result.run.name,
        "error": result.error,
        **{name: after.get(name) for name in METRICS},
        **{f"{name} before": before.get(name) for name in METRICS},
        "seconds": metrics["seconds"].get("train"),
        **{name: metrics.get(name) for name in COPIED},
        **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
    }


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, all or none."""
    with atomic_write(path) as partial:
        pq.write_table(pa.Table.from_pylist(list(rows)), partial)


def as_table(rows: Sequence[Row], metric: str) -> Table:
    """The runs as a table for people."""
    table = Table(title="leaderboard", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in (metric, "parameters", "MB", "texts/s", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        if row["error"] is not None:
            table.add_row(row["run"], "failed")
            continue
        costs = (row["parameters"], row["model_bytes"] / 1e6, row["texts_per_second"], row["seconds"])
        table.add_row(row["run"], f"{row[metric]:.4f}", *(f"{cost:,.{i == 1:d}f}" for i, cost in enumerate(costs)))
    return table
