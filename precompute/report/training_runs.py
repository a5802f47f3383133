"""Training runs as the report shows them, read from the ``metrics.json`` that `gistcache train` wrote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...shared.errors import IndexFaultError, InputError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.manifest import named_differences
from ...shared.sampling import evenly_spread
from ...shared.storage.integrity import parse_object
from ...shared.types import PRIMARY_METRIC
from .page import COLORS, LAYOUT, Section, Table, Value, escaped

EVALUATED, BEST = f"eval_cosine_{PRIMARY_METRIC}", f"{PRIMARY_METRIC} after"
CURVES = {  # by name in the trainer's log
    "loss": "training loss",
    EVALUATED: f"{PRIMARY_METRIC}, held-out pairs",
    "removed_share": "share of masked candidates",
}
CURVE_POINTS = 8_000  # of all runs together: with plotly.js (4.8 MB) the page stays under 6 MB
LEGEND_RUNS = 12


class Run(NamedTuple):
    """One training run: its folder, its row of the table by column, and (n, 2) steps and values of each of CURVES."""

    name: str
    cells: dict[str, Value]
    curves: dict[str, np.ndarray]


def read_runs(folders: Sequence[Path], index: GuideIndex) -> list[Run]:
    """Read the runs in these folders; raises InputError where one is no finished run or cannot be read."""
    names = Counter(folder.resolve().name for folder in folders)
    return [_read(folder, names[folder.resolve().name] == 1, index) for folder in folders]


def training_runs(runs: Sequence[Run]) -> Section:
    """Curves and final figures of training runs, the best run first and those without evaluation last."""
    columns = ("run", *runs[0].cells)
    ordered = sorted(runs, key=lambda run: np.nan_to_num(float(run.cells[BEST]), nan=-np.inf), reverse=True)
    table = Table(columns, [[run.name, *run.cells.values()] for run in ordered], columns.index(BEST))
    note = "Every run is on each chart; click on a name to hide it. Held-out pairs before and after training."
    return Section("runs", "Training runs", note, figure=_curves_figure(runs), table=table)


def _read(folder: Path, alone: bool, index: GuideIndex) -> Run:
    path, name = folder / "metrics.json", folder.resolve().name if alone else str(folder)
    try:
        return _run(name, parse_object(path, "run's metrics.json"), index)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexFaultError) as error:
        fix = "give folders in which `gistcache train` has finished"
        raise InputError("A training run cannot be read", where=f"{path}: {error!r}", fix=fix) from error


def _run(name: str, metrics: dict[str, Any], index: GuideIndex) -> Run:
    retrieval = [metrics["retrieval"][f"student {when}"] or {} for when in ("before", "after")]
    before, after = (_number(each.get(PRIMARY_METRIC)) for each in retrieval)
    log = [{"step": 0, EVALUATED: before}, *metrics["log"], {"step": metrics["steps"], EVALUATED: after}]
    same_index = not named_differences(metrics["run"]["index"], asdict(index.manifest.request), "run")
    cells: dict[str, Value] = {
        "student": str(metrics["settings"]["student"]),
        "steps": int(metrics["steps"]),
        "million parameters": metrics["parameters"] / 1e6,
        "mean loss": _number(metrics["training_loss"]),
        f"{PRIMARY_METRIC} before": before,
        BEST: after,
        "masked candidates, %": 100 * _number(metrics["removed_share"]),
        "training, s": _number(metrics["seconds"].get("train")),
        "peak memory, MB": metrics["peak_memory_bytes"] / 1e6,
        "index": "this one" if same_index else "another",
    }
    return Run(name, cells, {curve: _curve(log, curve) for curve in CURVES})


def _curve(log: list[dict[str, Any]], name: str) -> np.ndarray:
    points = [(entry["step"], entry[name]) for entry in log if name in entry]
    return np.array(points, dtype=np.float32).reshape(-1, 2)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _curves_figure(runs: Sequence[Run]) -> go.Figure:
    titles = tuple(CURVES.values())
    figure = make_subplots(rows=len(CURVES), shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    figure.update_layout(height=720, showlegend=len(runs) <= LEGEND_RUNS, **LAYOUT)
    figure.update_xaxes(title_text="step", row=len(CURVES))
    figure.update_yaxes(tickformat=".1%", row=len(CURVES))
    most = max(2, CURVE_POINTS // (len(runs) * len(CURVES)))
    for number, run in enumerate(runs):
        style = {"name": escaped(run.name), "legendgroup": number, "line_color": COLORS[number % len(COLORS)]}
        for row, curve in enumerate(CURVES, 1):
            points = run.curves[curve]
            x, y = points[evenly_spread(len(points), most)].T
            drawn = go.Scatter(x=x, y=y, showlegend=row == 1, mode="lines+markers", marker_size=4, **style)
            figure.add_trace(drawn, row=row, col=1)
    return figure
