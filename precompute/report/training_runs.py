"""Training runs as the report shows them: what `gistcache train` left in ``metrics.json``, held to its form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...shared.errors import IndexFaultError, InputError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.manifest import named_differences
from ...shared.storage.integrity import parse_object
from ...shared.types import PRIMARY_METRIC

CURVES = ("loss", PRIMARY_METRIC, "removed_share")

Curve = list[tuple[float, float]]  # step, value


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: Its folder's name, or its path where two folders have one name.
        student: As the settings name it.
        steps: Optimiser steps.
        epochs: Passes over the pairs, from the log; None where it does not say.
        figures: Final figures by column; None where there is none.
        curves: Of each of CURVES the values by step.
        same_index: Whether it was trained against the index of the report.
    """

    name: str
    student: str
    steps: int
    epochs: float | None
    figures: dict[str, float | None]
    curves: dict[str, Curve]
    same_index: bool


def read_runs(folders: Sequence[Path], index: GuideIndex) -> list[Run]:
    """The runs in these folders.

    Raises:
        InputError: A folder is no finished run, or its figures cannot be read.
    """
    names = Counter(folder.resolve().name for folder in folders)
    return [
        _read(folder, folder.resolve().name if names[folder.resolve().name] == 1 else str(folder), index)
        for folder in folders
    ]


def _read(folder: Path, name: str, index: GuideIndex) -> Run:
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(
            "There is no finished training run here", where=str(path), fix="give folders that `gistcache train` wrote"
        )
    try:
        metrics = parse_object(path, "run's metrics.json")
        return _run(name, metrics, index)
    except (KeyError, TypeError, ValueError, AttributeError, IndexFaultError) as error:
        raise InputError(
            "A run's figures cannot be read", where=f"{path}: {error!r}", fix="leave it out, or train it again"
        ) from error


def _run(name: str, metrics: dict[str, Any], index: GuideIndex) -> Run:
    before, after = (metrics["retrieval"][f"student {when}"] or {} for when in ("before", "after"))
    steps, log = int(metrics["steps"]), list(metrics["log"])
    evaluated = _curve(log, f"eval_cosine_{PRIMARY_METRIC}")
    ends = [(0, before.get(PRIMARY_METRIC)), (steps, after.get(PRIMARY_METRIC))]
    evaluated = [(step, value) for step, value in [ends[0], *evaluated, ends[1]] if value is not None]
    epochs = [float(entry["epoch"]) for entry in log if "epoch" in entry]
    return Run(
        name=name,
        student=str(metrics["settings"]["student"]),
        steps=steps,
        epochs=max(epochs, default=None),
        figures={
            "parameters": _number(metrics["parameters"]),
            "loss": _number(metrics["training_loss"]),
            f"{PRIMARY_METRIC} before": _number(before.get(PRIMARY_METRIC)),
            f"{PRIMARY_METRIC} after": _number(after.get(PRIMARY_METRIC)),
            "removed": _number(metrics["removed_share"]),
            "seconds": _number(metrics["seconds"].get("train")),
            "peak memory": _number(metrics["peak_memory_bytes"]),
        },
        curves={
            "loss": _curve(log, "loss"),
            PRIMARY_METRIC: evaluated,
            "removed_share": _curve(log, "removed_share"),
        },
        same_index=not named_differences(metrics["run"]["index"], asdict(index.manifest.request), "run"),
    )


def _curve(log: list[dict[str, Any]], key: str) -> Curve:
    points = ((_number(entry["step"]), _number(entry[key])) for entry in log if key in entry)
    return [(step, value) for step, value in points if step is not None and value is not None]


def _number(value: Any) -> float | None:  # noqa: ANN401 (a value from JSON)
    """A finite number, or None: JSON has no NaN, and a diverged run has one."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
