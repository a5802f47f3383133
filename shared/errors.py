"""The family of errors, and the exit code of each."""

from __future__ import annotations


class GistcacheError(Exception):
    """Base of every error that the product raises on purpose: what is wrong, where, and how the user can go on."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        parts = (f"\n  {name}: {text}" for name, text in (("where", self.where), ("to do", self.fix)) if text)
        return self.what + "".join(parts)


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
