"""Which input files a command means: files, globs, folders and URLs -> a sorted list of sources that can be opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import fsspec
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..errors import InputError, first_line

Format = Literal["parquet", "jsonl", "csv", "tsv"]

FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KNOWN = "Parquet, JSONL, CSV and TSV (the last three also .gz or .zst)"


@dataclass(frozen=True)
class Source:
    """One input file, not yet opened.

    Attributes:
        name: The file as messages name it.
        format: What its suffix says it is.
        compression: ``gzip``, ``zstd`` or None.
        bytes: Size as it lies there.
    """

    name: str
    format: Format
    compression: str | None
    filesystem: fsspec.AbstractFileSystem
    path: str
    bytes: int

    def open(self) -> pa.NativeFile:
        """Open for reading bytes, decompressed.

        Raises:
            InputError: The file cannot be opened.
        """
        try:
            file = pa.PythonFile(self.filesystem.open(self.path, "rb"), mode="r")
            return pa.CompressedInputStream(file, self.compression) if self.compression else file
        except Exception as error:  # each file system (local, hub, S3 ...) has its own family of errors
            raise unreadable(self.name, error) from error


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """Resolve files, globs, folders and URLs (``hf://datasets/...`` and whatever fsspec knows).

    Files of a folder or glob come in the order of their names; inputs keep the order given.

    Raises:
        InputError: An input does not exist, matches nothing, or is of no known format.
    """
    found: dict[str, Source] = {}
    for text in inputs:
        for source in _resolve(text):
            found.setdefault(source.name, source)
    if not found:
        raise InputError("No input file was given", fix=f"give files, globs or folders of {KNOWN}")
    return list(found.values())


def _resolve(text: str) -> list[Source]:
    scheme = text.partition("://")[0] + "://" if "://" in text else ""
    try:
        filesystem, path = url_to_fs(text)
        paths = _expand(filesystem, path)
        sources = [_source(filesystem, each, scheme) for each in paths]
    except Exception as error:  # as in open(): no common base class
        raise unreadable(text, error) from error
    if not paths:
        raise InputError("This input does not exist or matches no file", where=text, fix="check the path or the glob")
    if path in paths and sources[0] is None:
        raise InputError("The file is of no known format", where=text, fix=f"give {KNOWN}")
    known = [source for source in sources if source is not None]
    if not known:
        raise InputError("No file of a known format is here", where=text, fix=f"give {KNOWN}")
    return known


def _expand(filesystem: AbstractFileSystem, path: str) -> list[str]:
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        return sorted(each for each in filesystem.find(path) if not _hidden(each, path))
    return (
        sorted(str(each) for each in filesystem.glob(path) if filesystem.isfile(each)) if set("*?[") & set(path) else []
    )


def _hidden(path: str, folder: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(path.removeprefix(folder)).parts)


def _source(filesystem: AbstractFileSystem, path: str, scheme: str) -> Source | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    kind = FORMATS.get(suffixes[-2] if compression and len(suffixes) > 1 else suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and compression):
        return None
    name = f"{scheme}{path}".encode("utf-8", "backslashreplace").decode()  # a file's name may be any bytes
    return Source(name, kind, compression, filesystem, path, filesystem.size(path) or 0)


def unreadable(name: str, error: Exception, line: int | None = None) -> InputError:
    """The error for a file that cannot be opened, read or parsed, at a line where one is known."""
    where = f"{name}, line {line}" if line is not None else name
    return InputError(
        "The file cannot be read", where=f"{where}: {first_line(error)}", fix="check the path, the format, access"
    )
