"""Training runs as the report shows them, read from the ``metrics.json`` that `gistcache train` wrote."""

from __future__ import annotations

import math
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
        figures: Final figures by column of the table; None where there is none.
        curves: Of each of CURVES the values by step.
        same_index: Whether it was trained against the index of the report.
    """

    name: str
    student: str
    steps: int
    figures: dict[str, float | None]
    curves: dict[str, Curve]
    same_index: bool


def read_runs(folders: Sequence[Path], index: GuideIndex) -> list[Run]:
    """Read the runs in these folders.

    Raises:
        InputError: A folder is no finished run, or its figures cannot be read.
    """
    names = [folder.resolve().name for folder in folders]
    unique = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    return [_read(folder, name, index) for folder, name in zip(folders, unique, strict=True)]


def _read(folder: Path, name: str, index: GuideIndex) -> Run:
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(
            "There is no finished training run here", where=str(path), fix="give folders that `gistcache train` wrote"
        )
    try:
        return _run(name, parse_object(path, "run's metrics.json"), index)
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
    return Run(
        name=name,
        student=str(metrics["settings"]["student"]),
        steps=steps,
        figures={
            "million parameters": _number(metrics["parameters"], 1e-6),
            "mean loss": _number(metrics["training_loss"]),
            f"{PRIMARY_METRIC} before": _number(before.get(PRIMARY_METRIC)),
            f"{PRIMARY_METRIC} after": _number(after.get(PRIMARY_METRIC)),
            "masked candidates, %": _number(metrics["removed_share"], 100),
            "training, s": _number(metrics["seconds"].get("train")),
            "peak memory, MB": _number(metrics["peak_memory_bytes"], 1e-6),
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


def _number(value: Any, factor: float = 1.0) -> float | None:  # noqa: ANN401 (a value from JSON)
    """A finite number times a factor, or None: JSON has no NaN, and a diverged run has one."""
    number = math.nan if value is None else float(value) * factor
    return number if math.isfinite(number) else None
