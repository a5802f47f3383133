"""The results of a sweep, ranked: as rows, as a table, and as a chart of quality against size and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
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


def pareto_front(costs: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """Which points no other beats in cost or quality without losing in the other; from the cheapest on."""
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -qualities[i])):
        if not front or qualities[i] > qualities[front[-1]]:
            front.append(i)
    return front


def write_chart(rows: Sequence[Row], metric: str, path: Path) -> bool:
    """Write the chart as one HTML file that needs no network; False without plotly (extra `report`) or a result."""
    rows = [row for row in rows if row[metric] is not None]
    if not rows or not find_spec("plotly"):
        return False
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, shared_yaxes=True)
    qualities = [row[metric] for row in rows]
    for column, (name, title, sign) in enumerate(
        [("model_bytes", "bytes of the model", 1), ("texts_per_second", "texts a second", -1)], 1
    ):
        front = pareto_front([sign * row[name] for row in rows], qualities)
        for label, mode, points in (("runs", "markers", range(len(rows))), ("Pareto front", "lines", front)):
            x, y, text = zip(*((rows[i][name], qualities[i], rows[i]["run"]) for i in points), strict=True)
            figure.add_scatter(x=x, y=y, text=text, mode=mode, name=label, showlegend=column == 1, row=1, col=column)
        figure.update_xaxes(title=title, col=column)
    figure.update_yaxes(title=metric, col=1)
    figure.update_layout(title="Runs of the sweep; the Pareto front is joined", template="plotly_white")
    with atomic_write(path) as partial:
        partial.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
    return True
