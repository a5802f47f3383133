"""A sweep's TOML file, read into its runs, all of which are checked before the first one starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cyclopts import App, CycloptsError

from ...shared.cli.config_file import read_toml
from ...shared.errors import SettingsError
from ..settings import SweepSettings, TrainSettings

Flags = dict[str, Any]
Settings = TypeVar("Settings")

NOT_OF_A_RUN = {"index", "eval-pairs", "out", "resume"}
LONGEST_NAME = 120


class Run(NamedTuple):
    """One run of a sweep: its flags of `gistcache train`, and the settings that they make with the run's folder."""

    words: list[str]
    settings: TrainSettings

    @property
    def name(self) -> str:
        """Name of its folder: the student, its own flags, and a hash of what determines the weights."""
        return self.settings.out.name


def read_sweep(path: Path) -> tuple[SweepSettings, list[Run]]:
    """Read the runs of a sweep file; of several that would train the same weights, the first.

    Raises:
        SettingsError: A key is unknown, or a value is out of its range.
    """
    file = read_toml(path, ("sweep", "settings", "grid", "runs"))
    shared = _parse(SweepSettings, as_words(_hyphenated(file.get("sweep", {}))), f"{path} [sweep]")
    common = {"index": shared.index, "eval-pairs": list(shared.eval_pairs), **_flags(file, "settings", path)}
    runs: dict[str, Run] = {}
    for own in _points(file, path, shared.students):
        words = as_words(common | own)
        settings = _parse(TrainSettings, words, f"{path}: {', '.join(f'{key} = {own[key]}' for key in own)}")
        # What determines the weights; the run itself compares index, student and held-out pairs by content.
        determining = json.dumps({"student": settings.student, **settings.determining()}, sort_keys=True, default=str)
        digest = hashlib.sha256(determining.encode()).hexdigest()[:8]
        out = shared.out / _folder_name(shared.out, own, digest)
        runs.setdefault(digest, Run(words, replace(settings, out=out)))
    if not runs:
        raise SettingsError("There is nothing to train", where=f"{path} [sweep]", fix='give students = ["..."]')
    return shared, list(runs.values())


def as_words(flags: Flags) -> list[str]:
    """Flags and values as words of a command line; a list's flag is repeated."""
    each = [(name, one) for name, value in flags.items() for one in (value if isinstance(value, list) else [value])]
    return [f"--{name}={str(one).lower() if isinstance(one, bool) else one}" for name, one in each]


def _points(file: dict[str, Any], path: Path, students: Sequence[str]) -> Iterator[Flags]:
    """Each run's own flags: every combination of the grid for every student, then the explicit runs."""
    grid, explicit = _flags(file, "grid", path), file.get("runs", [])
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SettingsError(f"{key} lists no values", where=f"{path} [grid]", fix=f"write {key} = [...]")
    if not isinstance(explicit, list):
        raise SettingsError("runs is no list of tables", where=str(path), fix="write [[runs]]")
    if grid or not explicit:
        for student, *values in product(students, *grid.values()):
            yield {"student": student, **dict(zip(grid, values, strict=True))}
    for own in (_flags({"runs": run}, "runs", path) for run in explicit):
        for student in [own["student"]] if "student" in own else students:
            yield {"student": student} | own


def _flags(file: dict[str, Any], table: str, path: Path) -> Flags:
    """The flags in a table, none of which may be the whole sweep's."""
    flags = _hyphenated(file.get(table, {}))
    if common := sorted(flags.keys() & (NOT_OF_A_RUN if table == "runs" else NOT_OF_A_RUN | {"student"})):
        raise SettingsError(
            f"{common[0]} is no setting of single runs",
            where=f"{path} [{table}]",
            fix="give index, eval-pairs, out and students in [sweep]; a sweep resumes by itself",
        )
    return flags


def _hyphenated(table: Flags) -> Flags:
    return {key.replace("_", "-"): value for key, value in table.items()}


def _parse(kind: type[Settings], words: list[str], where: str) -> Settings:
    """Parse settings as the command line does, so that unknown flags, types and ranges are refused alike."""
    parser = App(default_command=kind, help_flags=[], version_flags=[], result_action="return_value")
    try:
        return parser(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise SettingsError(str(error).strip(), where=where, fix="see `gistcache train --help`") from error
    except SettingsError as error:
        raise SettingsError(error.what, where=f"{where}: {error.where}", fix=error.fix) from error


def _folder_name(out: Path, own: Flags, digest: str) -> str:
    """The folder that the run has already, whatever flags were its own then; else a new name."""
    if existing := sorted(out.glob(f"*_{digest}")):
        return existing[0].name
    student = "-".join(re.split(r"[/\\:]", str(own["student"]).rstrip("/"))[-2:])
    parts = [student, *(f"{key}-{value}" for key, value in own.items() if key != "student")]
    return f"{re.sub(r'[^A-Za-z0-9.+_-]+', '-', '_'.join(parts))[:LONGEST_NAME]}_{digest}"
