"""One HTML page of sections, with everything it needs inside.

Jinja escapes every text; figures stand in the page as JSON. The page's own security policy allows the scripts that are
written here and nothing else, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

Value = str | float  # an integer is a count, NaN a missing value

HOVER_CHARACTERS = 60
# They can be read on a light and on a dark page; neutral parts get theirs from the page's script.
COLORS = ("#3d85c6", "#d9622b", "#2b9a66", "#b05cc8", "#b58a1b", "#d64f7f", "#2496a8", "#7d7f87")
LAYOUT = {
    "template": "none",
    "colorway": COLORS,
    "legend": {"orientation": "h", "y": 1.05, "yanchor": "bottom", "x": 0},
    "margin": {"t": 16, "r": 12, "l": 56, "b": 48},
}


class Fact(NamedTuple):
    """One figure of the first section, and a note on what it is of."""

    name: str
    value: str
    note: str


class Table(NamedTuple):
    """A table that can be sorted by each column; its rows come sorted by column ``sorted_by``, the greatest on top."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    sorted_by: int = 0


class Section(NamedTuple):
    """One subject of the page; ``note`` says how to read it and what it is of."""

    name: str
    title: str
    note: str = ""
    facts: Sequence[Fact] = ()
    figure: go.Figure | None = None
    table: Table | None = None


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    folder = resources.files(__package__ or "")
    files = {kind: (folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
    scripts = [get_plotlyjs(), files["js"]]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters["shown"] = _shown
    return environment.from_string(files["html"]).render(
        title=title,
        sections=sections,
        figures={each.name: json.loads(each.figure.to_json() or "") for each in sections if each.figure},
        style=Markup(files["css"]),
        scripts=[Markup(script) for script in scripts],
        allowed=Markup(" ".join(map(_policy_source, scripts))),
    )


def empty_figure(x: str, y: str, height: int) -> go.Figure:
    """A figure of one chart with the names of its axes."""
    figure = go.Figure()
    figure.update_layout(height=height, showlegend=False, **LAYOUT)
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure


def escaped(text: str) -> str:
    """The beginning of a text in one line, for plotly.js, which takes some tags in names and hover texts for markup."""
    return html.escape(clipped(" ".join(text.split()), HOVER_CHARACTERS), quote=False)


def clipped(text: str, limit: int) -> str:
    """A text, or its first ``limit`` characters and an ellipsis."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def _shown(value: Value) -> str:
    """A value as a table shows it: counts whole, other numbers to four digits."""
    if isinstance(value, str):
        return value
    whole = isinstance(value, int) or value >= 1000
    return "none" if math.isnan(value) else f"{value:,.0f}" if whole else f"{value:#.4g}"


def _policy_source(script: str) -> str:
    """An inline script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
