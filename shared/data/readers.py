"""Files of each format, and rows from Python -> rows: a line number, and the row's fields or why it cannot be read.

Texts are decoded with ``surrogateescape``, so that a byte that is no UTF-8 spoils its own row and no other.
"""

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

MAX_LINE_BYTES = 32 * 2**20
PARQUET_BATCH_ROWS = 512
TEXT_TYPES = frozenset(
    {pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()}
)
MAX_NAMES = 20

# Files by name, or rows: a ``datasets.Dataset``, or any other iterable of dictionaries.
Inputs = Iterable[str | PathLike[str]] | Iterable[Mapping[str, Any]]
Fields = dict[str, Any]
Row = tuple[int, Fields | str]
IsNeeded = Callable[[str], bool]


def read_inputs(inputs: Inputs, is_needed: IsNeeded | None = None) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yield the name and the rows of each input file; rows from Python are one input named ``rows``.

    Args:
        inputs: Files, globs, folders or URLs, see ``find_sources``; or rows as dictionaries by column name.
        is_needed: See ``read_rows``.

    Raises:
        InputError: See ``find_sources``; or the input is one dictionary, such as a ``datasets.DatasetDict``.
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
        yield "rows", _python_rows(chain([first], each))


def read_rows(source: Source, is_needed: IsNeeded | None = None, header: Sequence[str] = ()) -> Iterator[Row]:
    """Yield ``(line, fields)`` or ``(line, reason)`` for each row of a file.

    Args:
        source: The file.
        is_needed: Whether a column of this name is of interest; others may be left out. None reads all.
        header: Names of the first columns of a CSV or TSV file, if its first row is not a header with all of them.

    Raises:
        InputError: The file cannot be parsed; names file and line.
    """
    is_needed = is_needed or (lambda name: True)
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


def _python_rows(rows: Iterable[object]) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            yield number, {str(name): value for name, value in row.items()}
        else:
            yield number, "wrong type"


def _jsonl_rows(source: Source) -> Iterator[Row]:
    for number, text in enumerate(_lines(source), 1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            yield number, "not JSON"
            continue
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, list) and len(value) >= 2:
            # The plain tuples of the sentence-transformers data sets: anchor, positive, negatives.
            yield number, {"anchor": value[0], "positive": value[1], "negative": value[2:]}
        else:
            yield number, "wrong type"


def _delimited_rows(source: Source, is_needed: IsNeeded, header: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_BYTES)
    # strict: a quote that is never closed would otherwise swallow the rows after it.
    reader = csv.reader(_lines(source), delimiter="\t" if source.format == "tsv" else ",", strict=True)
    first, line = next(reader, []), 1
    if header and not set(header) <= set(first):
        rows, names, width = chain([first], reader), list(header), len(first)
    else:
        rows, names, width, line = reader, first, len(first), reader.line_num + 1
    _refuse_repeated(source, names)
    places = {place: name for place, name in enumerate(names) if is_needed(name)}
    places = places or dict(enumerate(names[:MAX_NAMES]))
    for cells in rows:
        if len(cells) == width >= len(names):
            # A delimited file has no null: an empty cell is a missing value.
            yield line, {name: cells[place] or None for place, name in places.items()}
        elif cells:
            yield line, "wrong number of columns"
        line = reader.line_num + 1


def _lines(source: Source) -> Iterator[str]:
    """Yield each line, decoded; a line that would fill the memory is refused."""
    with io.BufferedReader(source.open()) as stream:  # type: ignore[arg-type]  (NativeFile has RawIOBase's methods)
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(
                    f"A line is longer than {MAX_LINE_BYTES >> 20} MiB",
                    where=f"{source.name}, line {number}",
                    fix="check that the file is what its name says",
                )
            text = line.decode("utf-8", "surrogateescape")
            yield text.removeprefix("\ufeff") if number == 1 else text


def _parquet_rows(source: Source, is_needed: IsNeeded) -> Iterator[Row]:
    with source.open() as stream, pq.ParquetFile(stream) as file:
        names = [name for name in file.schema_arrow.names if is_needed(name)]
        names = names or file.schema_arrow.names[:MAX_NAMES]
        _refuse_repeated(source, names)
        row = 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
            columns = [map(_decoded, _readable(column).to_pylist()) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                row += 1
                yield row, dict(zip(batch.schema.names, cells, strict=True))


def _readable(column: pa.Array) -> pa.Array:
    """The column with its strings as bytes; NaN in place of dates, structs and the like, which are refused by row."""
    type_ = _readable_type(column.type)
    if type_ is None:  # converting the values themselves might fail for all rows
        return pa.array([None if missing else math.nan for missing in column.is_null().to_pylist()], pa.float64())
    return column.cast(type_)


def _readable_type(type_: pa.DataType) -> pa.DataType | None:
    """The type with strings as bytes, which need not be UTF-8; None unless it holds texts, numbers or lists of them."""
    if pa.types.is_dictionary(type_):
        return _readable_type(type_.value_type)
    if type_ in TEXT_TYPES:
        return pa.large_binary()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = _readable_type(type_.value_type)
        return None if inner is None else pa.large_list(inner)
    number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return type_ if number or pa.types.is_null(type_) else None


def _decoded(value: Any) -> Any:  # noqa: ANN401 (any cell)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _refuse_repeated(source: Source, names: Sequence[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"There are {names.count(repeated[0])} columns {repeated[0]!r}", where=source.name)
