"""One HTML page of figures, tables and facts, with everything it needs inside.

Jinja escapes what stands in the page as text; data stands in it as JSON, and the page's script inserts it as text. The
page's own security policy allows the scripts that are written here and nothing else, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .costs import Fact
from .figures import Figure
from .page_tables import Table


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    note: str = ""
    facts: Sequence[Fact] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


def render(title: str, sections: Sequence[Section]) -> str:
    """The page."""
    folder = resources.files(__package__ or "")
    files = {kind: (folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
    scripts = [get_plotlyjs(), files["js"]]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    data = {
        "figures": {figure.name: figure.json for section in sections for figure in section.figures},
        "tables": {table.name: table.json for section in sections for table in section.tables},
    }
    return environment.from_string(files["html"]).render(
        title=title,
        sections=sections,
        data=data,
        style=Markup(files["css"]),
        scripts=[Markup(script) for script in scripts],
        allowed=" ".join(map(_allowed, scripts)),
    )


def _allowed(script: str) -> str:
    """How a content security policy names an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
