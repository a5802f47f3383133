"""Files of each format, and rows from Python -> rows: a line number, and the row's fields or why it cannot be read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from os import PathLike, fspath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from .inputs import Source, find_sources, unreadable

MAX_LINE = 32 * 2**20
PARQUET_BATCH_ROWS = 512
MAX_NAMES = 20

# Files by name, or rows: a ``datasets.Dataset``, or any other iterable of dictionaries.
Inputs = Iterable[str | PathLike[str]] | Iterable[Mapping[str, Any]]
Fields = dict[str, Any]
Row = tuple[int, Fields | str]
IsNeeded = Callable[[str], bool]


def read_inputs(inputs: Inputs, is_needed: IsNeeded) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yield the name and the rows of each input file; rows from Python are one input named ``rows``.

    Raises InputError as ``find_sources`` does, and for one dictionary, such as a ``datasets.DatasetDict``.
    """
    if isinstance(inputs, Mapping):
        keys = ", ".join(map(str, inputs))
        raise InputError("A dictionary is no list of rows", where=f"keys {keys}", fix="give one of its values")
    each = iter([inputs] if isinstance(inputs, (str, PathLike)) else inputs)
    first = next(each, None)
    if first is None or isinstance(first, (str, PathLike)):
        names = [] if first is None else [fspath(name) for name in chain([first], each)]  # type: ignore[arg-type]
        yield from ((source.name, read_rows(source, is_needed)) for source in find_sources(names))
    else:
        rows: Iterable[object] = chain([first], each)
        fields = ({str(name): row[name] for name in row} if isinstance(row, Mapping) else "wrong type" for row in rows)
        yield "rows", enumerate(fields, 1)


def read_rows(source: Source, is_needed: IsNeeded, header: Sequence[str] = ()) -> Iterator[Row]:
    """Yield ``(line, fields)``, or ``(line, reason)`` where it cannot be read, for each row of a file.

    Columns that are not needed may be left out. ``header`` names the first columns of a CSV or TSV file whose first
    row is not a header with all of them. Raises InputError, which names file and line, where parsing fails.
    """
    line = 0
    try:
        if source.format == "parquet":
            rows = _parquet_rows(source, is_needed)
        elif source.format == "jsonl":
            rows = _jsonl_rows(source)
        else:
            rows = _delimited_rows(source, is_needed, header)
        for line, fields in rows:
            yield line, fields
    except (pa.ArrowException, OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
        raise unreadable(source.name, error, line + 1) from error


def _jsonl_rows(source: Source) -> Iterator[Row]:
    for number, text in enumerate(_lines(source), 1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            yield number, "not JSON"
            continue
        if isinstance(value, list) and len(value) >= 2:
            # As sentence-transformers' own data sets have it.
            value = {"anchor": value[0], "positive": value[1], "negative": value[2:]}
        yield number, value if isinstance(value, dict) else "wrong type"


def _delimited_rows(source: Source, is_needed: IsNeeded, header: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    # strict: a quote that is never closed would otherwise swallow the rows after it.
    reader = csv.reader(_lines(source), delimiter="\t" if source.format == "tsv" else ",", strict=True)
    first, line = next(reader, []), 1
    rows, names = chain([first], reader), header
    if set(header) <= set(first):
        next(rows, None)
        names, line = first, reader.line_num + 1
    needed = set(_needed(source, names, is_needed))
    places = {place: name for place, name in enumerate(names) if name in needed}
    for cells in rows:
        if len(cells) == len(first) >= len(names):
            # A delimited file has no null: an empty cell is a missing value.
            yield line, {name: cells[place] or None for place, name in places.items()}
        elif cells:
            yield line, "wrong number of columns"
        line = reader.line_num + 1


def _lines(source: Source) -> Iterator[str]:
    """Yield each line; one that would fill the memory is refused, and a byte that is no UTF-8 spoils only its row."""
    with io.TextIOWrapper(source.open(), "utf-8-sig", "surrogateescape", newline="\n") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), ""), 1):
            if len(line) > MAX_LINE:
                what, where = f"A line is longer than {MAX_LINE:,} characters", f"{source.name}, line {number}"
                raise InputError(what, where=where, fix="check that the file is what its name says")
            yield line


def _parquet_rows(source: Source, is_needed: IsNeeded) -> Iterator[Row]:
    with source.open() as stream, pq.ParquetFile(stream) as file:
        names, row = _needed(source, file.schema_arrow.names, is_needed), 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
            for cells in zip(*(map(_cell, column) for column in batch.columns), strict=True):
                row += 1
                yield row, dict(zip(batch.schema.names, cells, strict=True))


def _cell(scalar: pa.Scalar) -> Any:  # noqa: ANN401 (any cell)
    """The value of a cell, in which bytes are text; where Python has none, one that its row is refused for."""
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        return "\udcff"
    except (pa.ArrowException, ValueError, OverflowError):
        return math.nan
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _needed(source: Source, names: Sequence[str], is_needed: IsNeeded) -> list[str]:
    """The needed columns, each of which may come once; without any, the first few, for the message."""
    needed = [name for name in names if is_needed(name)] or list(names[:MAX_NAMES])
    for name, count in Counter(needed).items():
        if count > 1:
            raise InputError(f"There are {count} columns {name!r}", where=source.name)
    return needed
