"""What a sweep found: its runs ranked, as a table, a Parquet file and a chart of quality against size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from ...shared.cli.config_file import flatten
from ...shared.storage.files import atomic_write
from ...shared.types import METRICS
from .sweep_runs import Ended

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = dict[str, Any]
# What a chart shows quality against, the first that every run knows; and 1 where less of it is better, else -1.
SIZES = (("model_bytes", "bytes of the model", 1), ("parameters", "parameters", 1))
SPEEDS = (("texts_per_second", "texts a second", -1), ("seconds", "seconds of training", 1))


def ranked(ended: Sequence[Ended], metric: str) -> list[Row]:
    """A row a run, the best first and failed ones last: what it reached, what it cost, and all its settings."""
    rows = [_row(each) for each in ended]
    return sorted(rows, key=lambda row: -1.0 if row[metric] is None else row[metric], reverse=True)


def _row(ended: Ended) -> Row:
    metrics = ended.metrics or {}
    retrieval = metrics.get("retrieval") or {}
    before, after = (retrieval.get(f"student {when}") or {} for when in ("before", "after"))
    seconds = metrics.get("seconds") or {}
    settings = {name.replace("-", "_"): value for name, value in flatten(ended.run.settings)}
    return {
        "run": ended.run.name,
        "error": ended.error,
        **{name: after.get(name) for name in METRICS},
        **{f"{name} before": before.get(name) for name in METRICS},
        **{name: metrics.get(name) for name in ("parameters", "model_bytes", "texts_per_second", "peak_memory_bytes")},
        "seconds": seconds.get("train"),
        **{name: metrics.get(name) for name in ("steps", "training_loss", "removed_share")},
        **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
    }


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, whole or not at all."""
    with atomic_write(path) as partial:
        pq.write_table(pa.Table.from_pylist(list(rows)), partial)


def table_of(rows: Sequence[Row], metric: str) -> Table:
    """The runs as a person reads them."""
    table = Table(title="leaderboard", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in (metric, "parameters", "MB", "texts/s", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        costs = [_told(row["parameters"], ",d"), _told(row["model_bytes"], ",.1f", 1e6)]
        costs += [_told(row["texts_per_second"], ",.0f"), _told(row["seconds"], ",.0f")]
        table.add_row(row["run"], _told(row[metric], ".4f") if row["error"] is None else "failed", *costs)
    return table


def _told(value: float | None, form: str, unit: float | None = None) -> str:
    if value is None:
        return "-"
    return format(value if unit is None else value / unit, form)


def pareto_front(costs: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """Which points no other beats: as good in both and better in one; from the cheapest on."""
    points = list(zip(costs, qualities, strict=True))
    return sorted(
        (
            i
            for i, (cost, quality) in enumerate(points)
            if not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)
        ),
        key=points.__getitem__,
    )


def write_chart(rows: Sequence[Row], metric: str, path: Path) -> bool:
    """Write the chart as one HTML file that needs no network; False without plotly (extra `report`) or a result."""
    measured = [row for row in rows if row[metric] is not None]
    if not measured or not find_spec("plotly"):
        return False
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, shared_yaxes=True)
    for column, axes in enumerate((SIZES, SPEEDS), 1):
        name, title, sign = next((axis for axis in axes if all(row[axis[0]] for row in measured)), axes[-1])
        _draw(figure, column, [(sign, row[name], row[metric], row["run"]) for row in measured])
        figure.update_xaxes(title=title, col=column)
    figure.update_yaxes(title=metric, col=1)
    figure.update_layout(title="Runs of the sweep; the Pareto front is joined", template="plotly_white")
    with atomic_write(path) as partial:
        partial.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
    return True


def _draw(figure: Figure, column: int, points: list[tuple[int, float, float, str]]) -> None:
    """All runs as points, and those of the Pareto front joined."""
    front = pareto_front([sign * cost for sign, cost, _, _ in points], [quality for _, _, quality, _ in points])
    for mode, of, color, name in (
        ("markers", range(len(points)), "#888", "runs"),
        ("lines+markers", front, "#c33", "Pareto front"),
    ):
        _, costs, qualities, names = zip(*(points[i] for i in of), strict=True)
        marker = {"color": color, "size": 10}
        figure.add_scatter(x=costs, y=qualities, text=names, mode=mode, name=name, marker=marker, row=1, col=column)
    figure.update_traces(showlegend=False, col=2)
