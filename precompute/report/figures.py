"""The figures of the report.

Their colors can be read on a light and on a dark page; neutral parts get theirs from the page's script. plotly.js takes
some tags in names and hover texts for markup, so these are escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...shared.sampling import evenly_spread, sample_of
from ...shared.types import PRIMARY_METRIC
from .sample import RANK_EDGES, SEED, ScoredPairs, clipped
from .training_runs import CURVES, Run

# What the page holds at most: with plotly.js (4.8 MB) it stays under 6 MB.
POINTS = 800
HOVER_CHARACTERS = 60
CURVE_POINTS = 12_000  # of all runs together
LEGEND_RUNS = 12
COLORS = ("#3d85c6", "#d9622b", "#2b9a66", "#b05cc8", "#b58a1b", "#d64f7f", "#2496a8", "#7d7f87")
LAYOUT = {
    "template": "none",
    "colorway": COLORS,
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "margin": {"t": 16, "r": 12, "l": 56, "b": 48},
}


def scores_figure(sample: ScoredPairs, texts: dict[int, str]) -> go.Figure:
    """Guide score of at most POINTS positives against that of the closest document that is no known positive."""
    others = sample.closest_scores
    points = sample_of(len(sample), POINTS, SEED)
    points = points[sample.closest_ids[points] >= 0]
    above = others[points] > sample.scores[points]
    figure = _empty("positive", "closest non-positive", height=400)
    for name, pairs in (("positive is closest", points[~above]), ("another document is closer", points[above])):
        figure.add_scatter(
            x=_rounded(sample.scores[pairs]),
            y=_rounded(others[pairs]),
            text=[_hover_text(sample, pair, texts) for pair in pairs],
            name=name,
            mode="markers",
            marker={"size": 5, "opacity": 0.7},
            hovertemplate="%{x:.3f} against %{y:.3f}<br>%{text}<extra></extra>",
        )
    values = np.concatenate([sample.scores[points], others[points]]) if len(points) else np.array([0.0, 1.0])
    ends = (float(values.min()), float(values.max()))
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "width": 1}, name="equal")
    return figure


def ranks_figure(counts: np.ndarray) -> go.Figure:
    """Share of pairs by the rank of their positive; ``counts`` as ``positive_ranks`` returns them."""
    last = max(1, int(np.flatnonzero(counts).max(initial=0)) + 1)
    ends = [*(edge - 1 for edge in RANK_EDGES[1:]), None]
    names = [
        f"{low:,}" if low == high else f"{low:,} to {high:,}" if high is not None else f"{low:,} and more"
        for low, high in zip(RANK_EDGES[:last], ends[:last], strict=True)
    ]
    figure = _empty("documents above the positive", "share of pairs", height=340)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(type="category")
    figure.add_bar(
        x=names,
        y=_rounded(counts[:last] / max(1, counts.sum())),
        customdata=counts[:last].tolist(),
        hovertemplate="%{x} above: %{customdata:,} pairs, %{y:.1%}<extra></extra>",
    )
    return figure


def runs_figure(runs: Sequence[Run]) -> go.Figure:
    """Loss, evaluation and share of masked candidates against steps: every run on each."""
    titles = ("training loss", f"{PRIMARY_METRIC}, held-out pairs", "share of masked candidates")
    figure = make_subplots(rows=len(CURVES), shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    figure.update_layout(height=720, showlegend=len(runs) <= LEGEND_RUNS, **LAYOUT, legend_y=1.05)
    figure.update_xaxes(title_text="step", row=len(CURVES))
    figure.update_yaxes(tickformat=".1%", row=len(CURVES))
    most = max(2, CURVE_POINTS // (len(runs) * len(CURVES)))
    for number, run in enumerate(runs):
        for row, curve in enumerate(CURVES, 1):
            points = run.curves[curve]
            points = [points[place] for place in evenly_spread(len(points), most)]
            figure.add_scatter(
                x=[int(step) for step, _ in points],
                y=[float(f"{value:.5g}") for _, value in points],
                name=_escaped(run.name),
                legendgroup=number,
                showlegend=row == 1,
                mode="lines+markers",
                marker_size=4,
                line_color=COLORS[number % len(COLORS)],
                row=row,
                col=1,
            )
    return figure


def _empty(x: str, y: str, height: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(height=height, **LAYOUT)
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure


def _hover_text(sample: ScoredPairs, pair: int, texts: dict[int, str]) -> str:
    ids = {"anchor": sample.anchors, "positive": sample.positives, "closest": sample.closest_ids}
    return "<br>".join(f"{name}: {_escaped(texts[int(column[pair])])}" for name, column in ids.items())


def _escaped(text: str) -> str:
    """The beginning of a text in one line, its markup escaped."""
    return html.escape(clipped(" ".join(text.split()), HOVER_CHARACTERS), quote=False)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
