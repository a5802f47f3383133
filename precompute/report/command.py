"""`gistcache report`: one HTML page of an index and of the runs trained against it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import SettingsError
from ...shared.progress import spinner
from ...shared.settings import refuse_below

LIBRARIES = ("plotly", "jinja2")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Settings of `gistcache report`."""

    out: Path = Path("report.html")
    """File to write the page to."""
    runs: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Folders that `gistcache train` wrote."""
    sample: int = 4_096
    """Pairs to look at, drawn with a fixed seed; ranks and suspicious pairs are of all."""

    def __post_init__(self) -> None:
        """Raise SettingsError where the sample is empty."""
        refuse_below(self, 1, "sample")


def report(index: str, *, settings: ReportSettings = ReportSettings()) -> CommandResult:
    """Show what the guide says about the pairs: one page, readable offline, of an index and of training runs.

    Parameters
    ----------
    index
        A guide index: a folder or a URL.
    """
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise SettingsError(f"The report needs {' and '.join(missing)}", fix="pip install 'gistcache[report]'")
    from ...shared.guide_index.guide_index import GuideIndex
    from ...shared.storage.files import atomic_write
    from .page import render
    from .sections import report_sections
    from .training_runs import read_runs

    opened = GuideIndex.open(index)
    runs = read_runs(settings.runs, opened)
    with spinner("report"):
        page = render(f"Guide index {Path(index).name}", report_sections(opened, runs, settings.sample))
    with atomic_write(settings.out.absolute(), locked=False) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")
    size = settings.out.stat().st_size
    return CommandResult({"out": str(settings.out), "bytes": size}, (Text(f"{settings.out}: {size / 1e6:.1f} MB"),))
