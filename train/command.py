"""The `gistcache train` command."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ..shared.cli.output import CommandResult
from ..shared.types import METRICS
from .settings import TrainSettings


def train(*, settings: TrainSettings) -> CommandResult:
    """Train a small student against a guide index, with no guide in memory."""
    from .run.run import train_student  # the libraries that it loads take seconds, and --help needs none

    metrics = train_student(settings)
    tables = (retrieval_table(metrics["retrieval"]),) if any(metrics["retrieval"].values()) else ()
    data = {"out": str(settings.out)} | {name: metrics[name] for name in metrics if name not in ("log", "run")}
    return CommandResult(data, (*tables, costs(metrics), Text(f"model and metrics.json: {settings.out}")))


def retrieval_table(retrieval: dict[str, dict[str, float] | None]) -> Table:
    """Retrieval on held-out pairs: of the student before and after, at each dimension, and of the guide."""
    table = Table(title="held-out pairs", title_justify="left")
    for column in ("", *METRICS):
        table.add_column(column, justify="right" if column else "left")
    for name in sorted(retrieval, key=lambda name: (name == "guide", not name.endswith("before"), name)):
        if figures := retrieval[name]:
            table.add_row(name, *(f"{figures[metric]:.4f}" for metric in METRICS))
    return table


def costs(metrics: dict[str, Any]) -> Text:
    """Seconds and memory of both stages, the student's size and speed, and the share of masked candidates."""
    from .student.footprint import summarize

    stages = {"index": metrics.get("index"), "train": metrics}
    lines = [
        f"{name}: {sum(stage['seconds'].values()):,.0f} s, peak memory {stage['peak_memory_bytes'] / 1e6:,.0f} MB"
        for name, stage in stages.items()
        if stage
    ]
    if "encoded" in metrics:  # rank 0 alone measures it
        lines.append(f"student: {summarize(metrics)}")
    if metrics["removed_share"] is not None:
        lines.append(f"in-batch candidates masked as false negatives: {metrics['removed_share']:.2%}")
    return Text("\n".join(lines))
