"""Names of inputs (files, globs, folders, URLs) -> the input files, in order, ready to be opened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..errors import InputError, first_line

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KNOWN = "Parquet, JSONL, CSV and TSV (the last three also .gz or .zst)"


@dataclass(frozen=True)
class Source:
    """One input file, not yet opened; messages call it by its ``name``."""

    name: str
    format: str
    compression: str | None
    filesystem: AbstractFileSystem
    path: str

    def open(self) -> Any:  # noqa: ANN401 (a binary stream)
        """Open the file to read its bytes, decompressed; raises InputError."""
        try:
            file = self.filesystem.open(self.path, "rb")
            return pa.CompressedInputStream(file, self.compression) if self.compression else file
        except Exception as error:  # each file system (local, hub, S3 ...) has its own family of errors
            raise unreadable(self.name, error) from error


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """Resolve files, globs, folders and URLs (``hf://datasets/...`` and whatever fsspec knows).

    Files of a folder or glob come by name, inputs in order, a file once. Raises InputError where there is none.
    """
    sources = {source.name: source for text in inputs for source in _resolve(text)}
    if not sources:
        raise InputError("No input file was given", fix=f"give files, globs or folders of {KNOWN}")
    return list(sources.values())


def _resolve(text: str) -> list[Source]:
    scheme = text.partition("://")[0] + "://" if "://" in text else ""
    try:
        filesystem, path = url_to_fs(text)
        if filesystem.isfile(path):
            paths = [path]
        elif filesystem.isdir(path):
            paths = [each for each in filesystem.find(path) if not re.search("(^|/)[._]", each.removeprefix(path))]
        else:
            paths = [str(each) for each in filesystem.glob(path) if filesystem.isfile(each)]
    except Exception as error:  # as in open(): no common base class
        raise unreadable(text, error) from error
    sources = [source for each in sorted(paths) if (source := _source(filesystem, each, scheme))]
    if not sources:
        what = "There is no file of a known format here" if paths else "This input does not exist or matches no file"
        raise InputError(what, where=text, fix=f"check the path or the glob; give {KNOWN}")
    return sources


def _source(filesystem: AbstractFileSystem, path: str, scheme: str) -> Source | None:
    """The file as a source; None where its suffix is that of no known format."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in PurePosixPath(path).suffixes)]
    compression = COMPRESSIONS.get(last)
    format_ = FORMATS.get(before if compression else last)
    if format_ is None or (format_ == "parquet" and compression):
        return None
    name = f"{scheme}{path}".encode("utf-8", "backslashreplace").decode()  # a file's name may be any bytes
    return Source(name, format_, compression, filesystem, path)


def unreadable(name: str, error: Exception, line: int | None = None) -> InputError:
    """The error for a file that cannot be opened, read or parsed, at a line where one is known."""
    where = f"{name}, line {line}" if line is not None else name
    fix = "check the path, the format, access"
    return InputError("The file cannot be read", where=f"{where}: {first_line(error)}", fix=fix)
