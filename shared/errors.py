"""The family of errors: what is wrong, where, and what to do about it; and checks of settings that raise them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class GistcacheError(Exception):
    """Base of every error that the product raises on purpose.

    Args:
        what: What is wrong, one sentence.
        where: The file, line, flag or text concerned.
        fix: What the user can do to go on.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


class SettingsError(GistcacheError):
    """A flag or setting has a value that cannot be used."""

    exit_code = 2


class InputError(GistcacheError):
    """An input file is missing, unreadable or holds no usable pair."""

    exit_code = 3


class ModelError(GistcacheError):
    """A guide or student cannot be found, is not safe to load, or gives unusable vectors."""

    exit_code = 4


class IndexFaultError(GistcacheError):
    """A guide index is absent, damaged, or of another format version."""

    exit_code = 5


class StaleIndexError(GistcacheError):
    """A folder holds something else than what the command requests."""

    exit_code = 6


class FolderLockedError(GistcacheError):
    """Another process is writing to the folder."""

    exit_code = 7


class StorageError(GistcacheError):
    """Object storage cannot be reached, or refuses."""

    exit_code = 8


class StoppedEarly(GistcacheError):  # noqa: N818 (nothing went wrong)
    """The process was stopped by SIGTERM and has saved what it had done."""

    exit_code = 0


def first_line(error: BaseException) -> str:
    """The first line of another library's message; the name of its class if there is no message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def flag_of(name: str) -> str:
    """The flag of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def refuse_below(settings: object, least: int, *names: str, strictly: bool = False) -> None:
    """Raise SettingsError where a setting is less than ``least`` (``strictly``: or equal), infinite or NaN.

    A setting that is None is skipped.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not ((least < value if strictly else least <= value) and value < math.inf):
            fix = f"give more than {least}" if strictly else f"give {least} or more"
            raise SettingsError(f"{value} is out of range", where=flag_of(name), fix=fix)


def refuse_idle(settings: DataclassInstance, names: Iterable[str], without: str) -> None:
    """Raise SettingsError where a setting that has no effect ``without`` another one differs from its default."""
    defaults = {each.name: each.default for each in fields(settings)}
    for name in names:
        if getattr(settings, name) != defaults[name]:
            what = f"This has no effect without {without}"
            raise SettingsError(what, where=flag_of(name), fix="leave it out, or give that too")


def refuse_url(path: Path, flag: str) -> None:
    """Raise SettingsError where a path is a URL, in which Path has merged the slashes."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise SettingsError("This is written on this machine, not to a URL", where=f"{flag} {path}", fix="give a path")
