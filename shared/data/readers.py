"""Files of each format -> rows: a line number and either the row's fields or the reason it cannot be read.

Texts are decoded with ``surrogateescape``, so that a byte that is no UTF-8 spoils its own row and no other.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from .inputs import Source, unreadable

MAX_LINE_BYTES = 32 * 2**20
PARQUET_BATCH_ROWS = 512
# A file that unpacks to more than this, and to so many times its size, is no text: it would fill memory or never end.
BOMB_BYTES, BOMB_RATIO = 32 * 2**20, 100
PARQUET_BOMB_ROWS, PARQUET_ROWS_A_BYTE = 10_000_000, 16

TEXT_TYPES = frozenset(
    {pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()}
)
NAMES_SHOWN = 20

Fields = dict[str, Any]
Row = tuple[int, Fields | str]


def read_rows(source: Source, wanted: Callable[[str], bool] | None = None) -> Iterator[Row]:
    """Yield ``(line, fields)`` or ``(line, reason)`` for each row of a file.

    Args:
        source: The file.
        wanted: Says of a column name whether it is of interest; others may be left out. None reads all.

    Raises:
        InputError: The file cannot be parsed; names file and line.
    """
    readers = {"parquet": _parquet_rows, "jsonl": _jsonl_rows, "csv": _delimited_rows, "tsv": _delimited_rows}
    line = 0
    try:
        for line, fields in readers[source.format](source, wanted):
            yield line, fields
    except (pa.ArrowException, OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
        raise unreadable(source.name, error, line + 1) from error


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    with io.BufferedReader(source.open()) as stream:  # type: ignore[arg-type]  (NativeFile has RawIOBase's methods)
        number = unpacked = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            unpacked += len(raw)
            if source.compression and unpacked > max(BOMB_BYTES, BOMB_RATIO * source.bytes):
                raise _bomb(source, f"more than {BOMB_RATIO} times its size")
            if len(raw) > MAX_LINE_BYTES:
                raise InputError(
                    f"A line is longer than {MAX_LINE_BYTES >> 20} MiB",
                    where=f"{source.name}, line {number}",
                    fix="check that the file is what its name says",
                )
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield number, raw.decode("utf-8", "surrogateescape")


def _bomb(source: Source, much: str) -> InputError:
    return InputError(
        f"The file unpacks to {much}",
        where=source.name,
        fix="check where it comes from; unpack it yourself if it is right",
    )


def _jsonl_rows(source: Source, wanted: Callable[[str], bool] | None) -> Iterator[Row]:
    del wanted
    for number, text in _lines(source):
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


def _delimited_rows(source: Source, wanted: Callable[[str], bool] | None) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = (text for _, text in _lines(source))
    # strict: a quote that is never closed would otherwise swallow the rows after it.
    reader = csv.reader(lines, delimiter="\t" if source.format == "tsv" else ",", strict=True)
    header = next(reader, None)
    if header is None:
        return
    _refuse_repeated(source, header)
    places = {place: name for place, name in enumerate(header) if wanted is None or wanted(name)}
    places = places or dict(enumerate(header[:NAMES_SHOWN]))
    line = reader.line_num + 1
    for cells in reader:
        if len(cells) == len(header):
            # A delimited file has no null: an empty cell is a missing value.
            yield line, {name: cells[place] or None for place, name in places.items()}
        elif cells:
            yield line, "wrong number of columns"
        line = reader.line_num + 1


def _parquet_rows(source: Source, wanted: Callable[[str], bool] | None) -> Iterator[Row]:
    with source.open() as stream, pq.ParquetFile(stream) as file:
        if file.metadata.num_rows > max(PARQUET_BOMB_ROWS, PARQUET_ROWS_A_BYTE * source.bytes):
            raise _bomb(source, f"{file.metadata.num_rows:,} rows")
        names = [name for name in file.schema_arrow.names if wanted is None or wanted(name)]
        names = names or file.schema_arrow.names[:NAMES_SHOWN]
        _refuse_repeated(source, names)
        row = unpacked = 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
            dense = [_as_bytes(batch.column(name)) for name in batch.schema.names]
            unpacked += sum(column.nbytes for column in dense)
            if unpacked > max(BOMB_BYTES, BOMB_RATIO * source.bytes):
                raise _bomb(source, f"more than {BOMB_RATIO} times its size")
            columns = [map(_text, column.to_pylist()) for column in dense]
            for cells in zip(*columns, strict=True):
                row += 1
                yield row, dict(zip(batch.schema.names, cells, strict=True))


def _as_bytes(column: pa.Array) -> pa.Array:
    if not _is_of_text(column.type):  # a date or a struct is refused row by row; reading it might fail for all
        return pa.array([None if missing else math.nan for missing in column.is_null().to_pylist()], pa.float64())
    return column.cast(_bytes_type(column.type))


def _is_of_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, numbers (of tasks, scores), or lists of texts."""
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_of_text(kind.value_type)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return number or pa.types.is_null(kind) or kind in TEXT_TYPES


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """The type with its strings as bytes: Arrow does not check that they are UTF-8, and decoding them would raise."""
    if pa.types.is_dictionary(kind):
        return _bytes_type(kind.value_type)
    if kind in TEXT_TYPES:
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_bytes_type(kind.value_type))
    return kind


def _text(value: Any) -> Any:  # noqa: ANN401 (any cell)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_text(each) for each in value] if isinstance(value, list) else value


def _refuse_repeated(source: Source, names: Sequence[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"Column {repeated[0]!r} stands {names.count(repeated[0])} times", where=source.name)
