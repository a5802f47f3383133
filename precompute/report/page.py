"""One HTML page of sections, with everything it needs inside.

Jinja escapes every text; figures stand in the page as JSON. The page's own security policy allows the scripts that are
written here and nothing else, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

Value = str | float | None  # an integer is a count


class Fact(NamedTuple):
    """One figure of the first section, and a note on what it is of."""

    name: str
    value: str
    note: str


class Table(NamedTuple):
    """A table that can be sorted by each column.

    Attributes:
        columns: Their names.
        rows: Values of each row, sorted as the page shows them at first.
        sorted_by: Number of the column that the rows are sorted by, the greatest on top.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    sorted_by: int = 0


@dataclass(frozen=True)
class Section:
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


def _shown(value: Value) -> str:
    """A value as a table shows it: counts whole, other numbers to four digits."""
    if value is None or isinstance(value, str):
        return value or "none"
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:#.4g}"


def _policy_source(script: str) -> str:
    """An inline script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
