"""The `gistcache train` command."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ..shared.cli.output import CommandResult
from ..shared.types import METRICS
from .settings import TrainSettings
from .student.footprint import told


def train(*, settings: TrainSettings) -> CommandResult:
    """Train a small student against a guide index, with no guide in memory."""
    from .run.run import train_student  # the libraries that it loads take seconds, and --help needs none

    metrics = train_student(settings)
    tables = (retrieval_table(metrics["retrieval"]),) if any(metrics["retrieval"].values()) else ()
    summary = {name: value for name, value in metrics.items() if name not in ("log", "run")}
    said = Text(f"model and metrics.json: {settings.out}")
    return CommandResult({"out": str(settings.out), **summary}, (*tables, costs(metrics), said))


def retrieval_table(retrieval: dict[str, dict[str, float] | None]) -> Table:
    """Retrieval on held-out pairs: of the student before and after, at each dimension, and of the guide."""
    table = Table(title="held-out pairs", title_justify="left")
    for column in ("", *METRICS):
        table.add_column(column, justify="left" if not column else "right")
    for name in sorted(retrieval, key=lambda name: (name == "guide", not name.endswith("before"), name)):
        if figures := retrieval[name]:
            table.add_row(name, *(f"{figures[metric]:.4f}" for metric in METRICS))
    return table


def costs(metrics: dict[str, Any]) -> Text:
    """What the stages took, the student's size and speed, and the share of removed cells, a line each."""
    stages = {"index": metrics["index"], "train": metrics} if "index" in metrics else {"train": metrics}
    lines = [
        f"{name}: {sum(stage['seconds'].values()):,.0f} s, peak memory {stage['peak_memory_bytes'] / 1e6:,.0f} MB"
        for name, stage in stages.items()
    ]
    if "encoded" in metrics:
        lines.append(f"student: {told(metrics)}")
    if metrics["removed_share"] is not None:
        lines.append(f"in-batch candidates removed as false negatives: {metrics['removed_share']:.2%}")
    return Text("\n".join(lines))
