"""The `gistcache train` command."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ..shared.evaluation import METRICS
from ..shared.outcome import Outcome
from .footprint import told
from .settings import TrainSettings


def train(*, settings: TrainSettings) -> Outcome:
    """Train a small student against a guide index, with no guide in memory."""
    from .run import train_student  # the libraries that it loads take seconds, and --help needs none

    metrics = train_student(settings)
    summary = {name: value for name, value in metrics.items() if name not in ("log", "run")}
    said = Text(f"model and metrics.json: {settings.out}")
    return Outcome({"out": str(settings.out), **summary}, (results_table(metrics), said))


def results_table(metrics: dict) -> Table:
    """Retrieval before and after, what the stages took, and the share of removed cells."""
    table = Table(title="held-out pairs", title_justify="left")
    for column in ("", *METRICS):
        table.add_column(column, justify="left" if not column else "right")
    for name, figures in metrics["retrieval"].items():
        if figures:
            table.add_row(name, *(f"{figures[metric]:.4f}" for metric in METRICS))
    stages = {"train": metrics}
    if "index" in metrics:
        stages = {"index": metrics["index"], **stages}
    captions = [
        f"{name}: {sum(stage['seconds'].values()):,.0f} s, peak memory {stage['peak_memory_bytes'] / 1e6:,.0f} MB"
        for name, stage in stages.items()
    ]
    if "encoded" in metrics:
        captions.append(f"student: {told(metrics)}")
    if metrics["removed_share"] is not None:
        captions.append(f"in-batch candidates removed as false negatives: {metrics['removed_share']:.2%}")
    table.caption, table.caption_justify = "\n".join(captions), "left"
    return table
