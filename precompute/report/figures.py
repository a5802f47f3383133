"""The figures of the report as plotly specifications.

Their colours can be read on a light and on a dark page; what is neutral is coloured by the page's script. Names and
texts on hover are plain here; plotly takes some tags for markup, so the script escapes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.sampling import evenly_spread, sample_of
from ...shared.types import PRIMARY_METRIC
from .batches import BLOCKS, MARGINS, RandomBatches
from .sample import RANK_EDGES, SEED, Excerpt, ScoredPairs, clipped, principal_plane
from .training_runs import CURVES, Run

# What the page holds at most, so that with plotly.js (4.8 MB) it stays under 6 MB whatever the texts are.
POINTS = 800
HOVER_BYTES = 90
CURVE_POINTS = 12_000  # of all runs together
LEGEND_RUNS = 12
MARKED_POINTS = 30
GOLDEN_ANGLE = 137.508
DASHES = ("solid", "dash", "dot", "dashdot")
COLORS = ("#3d85c6", "#d9622b", "#2b9a66", "#b05cc8", "#b58a1b", "#d64f7f", "#2496a8", "#7d7f87")
LAYOUT = {
    "template": "none",
    "colorway": COLORS,
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "margin": {"t": 16, "r": 12, "l": 56, "b": 48},
}


@dataclass(frozen=True)
class Figure:
    """A plot with its place on the page: ``note`` says how to read it and what it is of."""

    name: str
    title: str
    note: str
    spec: go.Figure
    height: int = 400

    @property
    def json(self) -> dict[str, Any]:
        """The specification as plotly.js reads it."""
        return json.loads(self.spec.to_json() or "")


def drawn(sample: ScoredPairs) -> np.ndarray:
    """The pairs of the sample that become points, by position: at most POINTS, ascending."""
    return sample_of(len(sample), POINTS, SEED)


def scores_figure(sample: ScoredPairs, texts: dict[int, Excerpt]) -> Figure:
    """Guide score of positives against that of the closest document that is no known positive."""
    held = sample.closest >= 0
    others, closest_ids = sample.closest_scores, sample.closest_ids
    points = [place for place in drawn(sample) if held[place]]
    above = others > sample.scores
    figure = _empty("positive", "closest non-positive")
    for name, shown in (("positive is closest", ~above), ("another document is closer", above)):
        places = np.array([place for place in points if shown[place]], dtype=np.int64)
        hover = [
            _lines(
                anchor=texts[int(sample.anchors[place])],
                positive=texts[int(sample.positives[place])],
                closest=texts[int(closest_ids[place])],
            )
            for place in places
        ]
        figure.add_scatter(
            x=_rounded(sample.scores[places]),
            y=_rounded(others[places]),
            text=hover,
            name=name,
            mode="markers",
            marker={"size": 5, "opacity": 0.7},
            hovertemplate="%{x:.3f} against %{y:.3f}<br>%{text}<extra></extra>",
        )
    ends = _span(np.concatenate([sample.scores[held], others[held]]))
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "width": 1}, name="equal")
    share = float(above[held].mean()) if held.any() else 0.0
    note = (
        f"Guide scores. For {share:.1%} of {int(held.sum()):,} sampled pairs a document that is no known positive "
        f"scores higher than the positive: they lie above the line. {len(points):,} pairs are drawn."
    )
    return Figure("scores", "Positive against closest non-positive", note, figure)


def batches_figure(batches: RandomBatches, pairs: int) -> Figure:
    """False negatives an anchor by margin, a line for each batch size."""
    figure = _empty("margin (absolute)", "false negatives an anchor")
    figure.update_yaxes(type="log", dtick=1, tickformat=",")
    for size, counts in batches.per_anchor.items():
        share = counts / max(1, BLOCKS * (size - 1))
        figure.add_scatter(
            x=_rounded(MARGINS),
            y=[value or None for value in counts.tolist()],
            customdata=_rounded(share * 100),
            name=f"batch {size:,}",
            mode="lines",
            hovertemplate="%{y:.3g} an anchor, %{customdata:.2f} % of cells<extra>%{fullData.name}</extra>",
        )
    note = (
        "Candidates of a batch that the guide scores above the anchor's positive less the margin: positives and "
        "anchors of other pairs against the anchor, positives against its positive, as in the loss. Known positives "
        "and mined negatives are left out. Computed from the cached vectors, on seeded random batches of the "
        f"{pairs:,} sampled pairs."
    )
    return Figure("batches", "False negatives by margin and batch size", note, figure)


def ranks_figure(counts: np.ndarray, index: GuideIndex) -> Figure:
    """How many pairs have their positive at which rank."""
    last = max(1, int(np.flatnonzero(counts).max(initial=0)) + 1)
    ends = [*(edge - 1 for edge in RANK_EDGES[1:]), None]
    names = [
        f"{low:,}" if low == high else f"{low:,} to {high:,}" if high is not None else f"{low:,} and more"
        for low, high in zip(RANK_EDGES[:last], ends[:last], strict=True)
    ]
    figure = _empty("documents above the positive", "share of pairs")
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(type="category")
    figure.add_bar(
        x=names,
        y=_rounded(counts[:last] / max(1, counts.sum())),
        customdata=counts[:last].tolist(),
        hovertemplate="%{x} above: %{customdata:,} pairs, %{y:.1%}<extra></extra>",
    )
    search = index.manifest.measured["search"]
    exact = "" if search["exact"] else " The search was approximate: ranks end with the stored neighbours."
    return Figure(
        "ranks",
        "Rank of the positive",
        f"How many documents the guide puts above the positive, of all {len(index):,} pairs.{exact}",
        figure,
        340,
    )


def clusters_figure(index: GuideIndex, sample: ScoredPairs, texts: dict[int, Excerpt]) -> Figure:
    """Anchors on their first two principal components, coloured by cluster."""
    points = drawn(sample)
    flat, explained = principal_plane(index.vectors(sample.anchors[points]).astype(np.float32))
    clusters = sample.clusters[points]
    figure = _empty("first component", "second component")
    figure.add_scatter(
        x=_rounded(flat[:, 0]),
        y=_rounded(flat[:, 1]),
        text=[_lines(anchor=texts[anchor]) for anchor in sample.anchors[points]],
        customdata=clusters.tolist(),
        mode="markers",
        marker={"size": 6, "color": [f"hsl({cluster * GOLDEN_ANGLE % 360:.0f},60%,52%)" for cluster in clusters]},
        hovertemplate="cluster %{customdata}<br>%{text}<extra></extra>",
    )
    note = (
        f"{len(points):,} anchors on the two principal components of their guide vectors, which show {explained:.0%} "
        f"of the variance; colours are the {len(np.unique(clusters)):,} clusters of the index that are among them."
    )
    return Figure("clusters", "Cluster map", note, figure, 460)


def lengths_figure(index: GuideIndex, sample: ScoredPairs, texts: dict[int, Excerpt]) -> Figure:
    """Characters of anchors and of positives."""
    figure = _empty("characters", "share of texts")
    roles = {"anchors": np.unique(sample.anchors), "positives": np.unique(sample.positives)}
    lengths = {name: np.array([texts[number].characters for number in ids]) for name, ids in roles.items()}
    edges = np.geomspace(1, max(values.max() for values in lengths.values()) + 1, 41)
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(tickformat=".0%")
    for name, values in lengths.items():
        counts, _ = np.histogram(values, edges)
        figure.add_scatter(
            x=_rounded(np.sqrt(edges[1:] * edges[:-1])),
            y=_rounded(counts / len(values)),
            name=name,
            mode="lines",
            line={"shape": "hvh"},
            fill="tozeroy",
            hovertemplate="about %{x:.0f} characters: %{y:.1%}<extra>%{fullData.name}</extra>",
        )
    medians = " and ".join(f"{np.median(values):,.0f} ({name})" for name, values in lengths.items())
    limit = index.manifest.request.guide.get("max_length")  # a guide elsewhere does not tell
    cut = f" The guide reads up to {limit:,} tokens of a text." if limit else ""
    note = f"Of the sample, each text once. Medians: {medians}.{cut}"
    return Figure("lengths", "Text lengths", note, figure, 340)


def runs_figure(runs: Sequence[Run]) -> Figure:
    """Loss, evaluation and share of removed cells against steps: every run on each."""
    titles = ("training loss", f"{PRIMARY_METRIC}, held-out pairs", "share of removed cells")
    figure = make_subplots(rows=len(CURVES), shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    figure.update_layout(showlegend=len(runs) <= LEGEND_RUNS, **LAYOUT, legend_y=1.05)
    figure.update_xaxes(title_text="step", row=len(CURVES))
    figure.update_yaxes(tickformat=".1%", row=CURVES.index("removed_share") + 1)
    most = max(2, CURVE_POINTS // (len(runs) * len(CURVES)))
    for number, run in enumerate(runs):
        for row, curve in enumerate(CURVES, 1):
            points = run.curves[curve]
            points = [points[place] for place in evenly_spread(len(points), most)]
            figure.add_scatter(
                x=[int(step) for step, _ in points],
                y=[float(f"{value:.5g}") for _, value in points],
                name=clipped(run.name, HOVER_BYTES),
                legendgroup=number,
                showlegend=row == 1,
                mode="lines+markers" if len(points) <= MARKED_POINTS else "lines",
                line={"color": COLORS[number % len(COLORS)], "dash": DASHES[number // len(COLORS) % len(DASHES)]},
                row=row,
                col=1,
            )
    return Figure("runs", "Runs", "Every run is on each chart; click on a name to hide it.", figure, 720)


def _empty(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure


def _lines(**texts: Excerpt) -> str:
    """Texts for hovering, a line each."""
    return "\n".join(f"{name}: {clipped(text.text, HOVER_BYTES)}" for name, text in texts.items())


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def _span(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
