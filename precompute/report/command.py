"""`gistcache report`: one self-contained page of an index and of the runs trained against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter
from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import SettingsError, refuse_below
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.progress import spinner
from ...shared.storage.files import atomic_write
from . import page_tables as tables
from .batches import RandomBatches, near_duplicates
from .costs import at_a_glance, saved
from .sample import ScoredPairs, excerpts, positive_ranks, sampled_pairs
from .training_runs import Run, read_runs

if TYPE_CHECKING:
    from .page import Section

LIBRARIES = ("plotly", "jinja2")
TABLE_ROWS = 100
MOST_RUNS = 100


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Everything `gistcache report` can be told besides the index."""

    out: Path = Path("report.html")
    """File to write the page to."""
    runs: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Folders that `gistcache train` wrote, 100 at most."""
    sample: int = 4_096
    """Pairs to look at, drawn with a fixed seed; ranks and suspicious pairs are of all."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingsError: The sample is empty, or there are more runs than a page can show.
        """
        if len(self.runs) > MOST_RUNS:
            raise SettingsError(f"A page shows {MOST_RUNS} runs at most", where="--runs", fix="give fewer")
        refuse_below(self, 1, "sample")


def report(index: str, *, settings: ReportSettings = ReportSettings()) -> CommandResult:
    """Show what the guide saw: one page, readable offline, of an index and of training runs.

    Parameters
    ----------
    index
        A guide index: a folder or a URL.
    """
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise SettingsError(f"The report needs {' and '.join(missing)}", fix="pip install 'gistcache[report]'")
    from .page import render

    opened = GuideIndex.open(index)
    runs = read_runs(settings.runs, opened)
    with spinner("report"):
        page = render(f"Guide index {Path(index).name}", _sections(opened, runs, settings.sample))
    with atomic_write(settings.out.absolute(), locked=False) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")
    size = settings.out.stat().st_size
    figures = {"out": str(settings.out), "bytes": size}
    return CommandResult(figures, (Text(f"{settings.out}: {size / 1e6:.1f} MB"),))


def _sections(index: GuideIndex, runs: Sequence[Run], size: int) -> list[Section]:
    from . import figures
    from .page import Section

    sample = ScoredPairs.read(index, sampled_pairs(index, size))
    counts, worst_ids = positive_ranks(index, TABLE_ROWS)
    worst = ScoredPairs.read(index, worst_ids)
    batches = RandomBatches.of(index, sample, TABLE_ROWS)
    duplicates = near_duplicates(index, sample, TABLE_ROWS)
    shown = [ids for pairs in (sample, worst) for ids in (pairs.anchors, pairs.positives, pairs.closest_ids)]
    texts = excerpts(
        index, np.concatenate([*shown, np.array([each[:2] for each in duplicates], dtype=np.int64).ravel()])
    )
    plots = [
        figures.scores_figure(sample, texts),
        figures.ranks_figure(counts, index),
        figures.batches_figure(batches, len(sample)),
        figures.clusters_figure(index, sample, texts),
        figures.lengths_figure(index, sample, texts),
    ]
    queries = index.manifest.request.corpus["queries"]
    listed = [
        tables.mislabelled(worst, texts),
        tables.false_negatives(batches.clearest, sample, texts, max(batches.per_anchor)),
        tables.near_duplicates(duplicates, queries, texts),
    ]
    part = "all" if len(sample) == len(index) else "a seeded sample of"
    note = f"Figures and tables are of {part} {len(sample):,} pairs, where they do not say otherwise."
    sections = [
        Section("glance", "At a glance", facts=at_a_glance(index, counts)),
        Section("saw", "What the guide saw", note, figures=plots),
        Section("texts", "The texts", "Long texts are cut.", tables=listed),
        Section("saved", "What was saved", facts=saved(index, runs)),
    ]
    if runs:
        drawn, final = [figures.runs_figure(runs)], [tables.final_figures(runs)]
        sections.append(Section("training", "Training runs", figures=drawn, tables=final))
    return sections
