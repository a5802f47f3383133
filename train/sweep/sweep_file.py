"""sweep.toml -> the runs of a sweep, all of them checked before the first one starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

TABLES = ("sweep", "settings", "grid", "runs")
# Given once for all runs, or by the sweep itself.
NOT_OF_A_RUN = {
    "index": "[sweep]",
    "eval-pairs": "[sweep]",
    "out": "[sweep]",
    "resume": "no file: a sweep resumes by itself",
    "push-to-hub": "the command that repeats the best run",  # all runs would go into one repository
}
LONGEST_NAME = 120


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: Of its folder: the student, what differs between the runs, and a hash of what determines the weights.
        flags: Flags of `gistcache train` and their values, as the file gives them.
        settings: The same, checked, with the run's folder.
    """

    name: str
    flags: Flags
    settings: TrainSettings

    def words(self, out: Path | None = None) -> list[str]:
        """The run as words after `gistcache train`."""
        return as_words({**self.flags, "out": str(out or self.settings.out)})


def read_sweep(path: Path) -> tuple[SweepSettings, list[Run]]:
    """The runs of a sweep file.

    Raises:
        SettingsError: A key is unknown, a value is out of its range, or two runs would train the same weights; says
            in which table.
    """
    content = _tables(read_toml(path, TABLES), path)
    shared = _parsed(SweepSettings, content["sweep"], f"{path} [sweep]")
    common = {"index": list(shared.index), "eval-pairs": list(shared.eval_pairs)}
    given = list(_flags_of_runs(content, shared.students))
    if not given:
        raise SettingsError("There is nothing to train", where=f"{path} [sweep]", fix='give students = ["..."]')
    students = {str(flags["student"]) for _, flags in given}
    varied = [key for key in dict.fromkeys(key for _, flags in given for key in flags) if _differs(key, given)]
    runs: dict[str, tuple[str, Run]] = {}
    for where, flags in given:
        settings = _parsed(TrainSettings, {**common, **flags}, f"{path} {where}")
        digest = _digest(settings)
        if digest in runs:
            raise SettingsError(
                "Two runs would train the same weights",
                where=f"{path} {runs[digest][0]} and {where}",
                fix="leave one of them out",
            )
        name = _name(shared.out, _short(settings.student, students), {key: flags.get(key) for key in varied}, digest)
        runs[digest] = where, Run(name, {**common, **flags}, replace(settings, out=shared.out / name))
    return shared, [run for _, run in runs.values()]


def as_words(flags: Mapping[str, Any]) -> list[str]:
    """Flags as a command line has them; a list's flag is repeated."""
    words = []
    for name, value in flags.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool):
                words.append(f"--{name}" if one else f"--{name}=false")  # some flags have no --no-
            else:
                words += [f"--{name}={one}"] if str(one).startswith("-") else [f"--{name}", str(one)]
    return words


def _tables(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The file's tables, each there, with flags as the command line spells them."""
    tables = {name: content.get(name, [] if name == "runs" else {}) for name in TABLES}
    for name, table in tables.items():
        many = table if isinstance(table, list) else [None]
        if not all(isinstance(one, dict) for one in (many if name == "runs" else [table])):
            wanted = "[[runs]]" if name == "runs" else f"[{name}]"
            raise SettingsError(f"{name} is no table of flags", where=str(path), fix=f"write {wanted}")
    plain = {name: _plain(tables[name], name, path) for name in ("sweep", "settings", "grid")}
    for key, values in plain["grid"].items():
        if not isinstance(values, list) or not values:
            raise SettingsError(f"{key} lists no values", where=f"{path} [grid]", fix=f"write {key} = [...]")
    return {**plain, "runs": [_plain(run, "runs", path) for run in tables["runs"]]}


def _plain(table: dict[str, Any], name: str, path: Path) -> Flags:
    flags = {key.replace("_", "-"): value for key, value in table.items()}
    belongs = NOT_OF_A_RUN | ({"student": "[sweep], as students"} if name != "runs" else {})
    for key in flags if name != "sweep" else ():
        if key in belongs:
            raise SettingsError(f"{key} belongs in {belongs[key]}", where=f"{path} [{name}]")
    return flags


def _flags_of_runs(content: dict[str, Any], students: Sequence[str]) -> Iterator[tuple[str, Flags]]:
    """Each run's flags and where they are given: the grid for every student, then the explicit runs."""
    fixed, grid, explicit = content["settings"], content["grid"], content["runs"]
    if grid or not explicit:
        for student, values in product(students, product(*grid.values())):
            point = dict(zip(grid, values, strict=True))
            yield _where(student, point), {"student": student, **fixed, **point}
    for number, run in enumerate(explicit, 1):
        for student in [run["student"]] if "student" in run else students:
            yield f"[[runs]] {number}: {_where(student, run)}", {"student": student, **fixed, **run}


def _where(student: str, own: Flags) -> str:
    return f"student {student}" + "".join(f", {key} = {json.dumps(value, default=str)}" for key, value in own.items())


def _parsed(kind: type[Settings], flags: Flags, where: str) -> Settings:
    """Settings as the command line itself reads them: unknown flags, types and ranges are told as there."""
    parser = App(default_command=kind, help_flags=[], version_flags=[], result_action="return_value")
    try:
        return parser(as_words(flags), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise SettingsError(str(error).strip(), where=where, fix="see `gistcache train --help`") from error
    except SettingsError as error:
        raise SettingsError(error.what, where=f"{where}: {error.where}", fix=error.fix) from error


def _differs(key: str, given: Iterable[tuple[str, Flags]]) -> bool:
    return len({json.dumps(flags.get(key), default=str) for _, flags in given}) > 1


def _digest(settings: TrainSettings) -> str:
    """Eight hex digits of what determines the weights, index and held-out pairs aside, which the run itself checks."""
    determining = {"student": settings.student, **settings.determining()}
    return hashlib.sha256(json.dumps(determining, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _short(student: str, students: Iterable[str]) -> str:
    """The last part of a student's locator, or the last two where another ends in the same one."""
    ends = ["-".join(re.split("[/\\\\:]", student.rstrip("/"))[-count:]) for count in (1, 2)]
    return ends[sum(other.endswith(ends[0]) for other in students) > 1]


def _name(out: Path, student: str, varied: Flags, digest: str) -> str:
    """A run's folder; the one that it has already, whatever differed between the runs then."""
    if held := sorted(out.glob(f"*_{digest}")):
        return held[0].name
    parts = [student, *(f"{key}-{value}" for key, value in varied.items() if key != "student" and value is not None)]
    readable = re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(parts))
    return f"{readable[:LONGEST_NAME]}_{digest}"
