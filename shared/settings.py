"""Checks of settings, each of which raises SettingsError and names the flag; and settings with fields replaced."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def flag_of(name: str) -> str:
    """The flag of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def refuse_below(settings: object, least: int, *names: str, strictly: bool = False) -> None:
    """Refuse settings less than ``least`` (``strictly``: or equal), infinite or NaN; those that are None pass."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not ((least < value if strictly else least <= value) and value < math.inf):
            fix = f"give more than {least}" if strictly else f"give {least} or more"
            raise SettingsError(f"{value} is out of range", where=flag_of(name), fix=fix)


def refuse_idle(settings: object, names: Iterable[str], without: str) -> None:
    """Refuse settings that have no effect ``without`` another one and differ from their defaults."""
    defaults = {each.name: each.default for each in fields(settings)}  # type: ignore[arg-type]
    for name in names:
        if getattr(settings, name) != defaults[name]:
            what = f"This has no effect without {without}"
            raise SettingsError(what, where=flag_of(name), fix="leave it out, or give that too")


def refuse_url(path: Path, flag: str) -> None:
    """Refuse a path that is a URL, in which Path has merged the slashes."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise SettingsError("This is written on this machine, not to a URL", where=f"{flag} {path}", fix="give a path")


def with_fields(settings: Settings, **values: Any) -> Settings:  # noqa: ANN401 (each field has its own type)
    """Replace fields of settings, those of nested settings by their own names, as on the command line.

    Raises:
        TypeError: There is no field of that name.
        SettingsError: A value cannot be used.
    """
    for each in fields(settings):
        if is_dataclass(nested := getattr(settings, each.name)):
            own = {name: values.pop(name) for name in values.keys() & _names(nested)}
            values[each.name] = with_fields(values.get(each.name, nested), **own)
    return replace(settings, **values)


def _names(settings: DataclassInstance | type[DataclassInstance]) -> set[str]:
    """The fields of settings and of nested settings."""
    nested = (getattr(settings, each.name) for each in fields(settings))
    return {each.name for each in fields(settings)}.union(*(_names(each) for each in nested if is_dataclass(each)))
