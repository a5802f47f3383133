"""Rows -> training pairs: which column is what, and which rows are refused and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from os import PathLike, fspath
from typing import Any, NamedTuple

from ..errors import InputError
from .columns import Columns
from .inputs import find_sources
from .readers import Fields, Row, read_rows

ANCHOR_NAMES = ("anchor", "query")
POSITIVE_NAMES = ("positive", "pos")
NEGATIVE_NAMES = ("negative", "neg")
NEGATIVE_NUMBERED = re.compile(r"negative_(\d{1,9})")
TASK_NAMES = ("task", "task_name")

# Each positive makes a pair with all negatives of its row.
MOST_TEXTS_A_ROW = 100_000

NAME_COLUMNS = "name its columns with --anchor-column and --positive-column"
# What to do about a file most of whose rows are refused for a reason.
FIXES = {
    "not UTF-8": "save the file as UTF-8",
    "not JSON": "write one JSON object a line; a glob such as 'FOLDER/*.jsonl' leaves out what holds no pairs",
    "wrong number of columns": "give every row as many cells as the header has",
    "too many texts": f"give a row {MOST_TEXTS_A_ROW:,} texts at most",
    "anchor equals positive": f"{NAME_COLUMNS}, or give pairs of two different texts",
}
# A file whose rows are refused up to here is not what it is taken for.
GIVE_UP_AFTER = 100_000


# Files by name, or rows: a ``datasets.Dataset``, or any other iterable of dictionaries.
Inputs = Iterable[str | PathLike[str]] | Iterable[Mapping[str, Any]]


class Pair(NamedTuple):
    """One training row."""

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    task: str | None


class Reject(NamedTuple):
    """An input row that is not used."""

    file: str
    line: int
    reason: str


class _BadRow(Exception):  # noqa: N818 (control flow inside this file)
    """Carries the reason for a rejection."""


def read_pairs(
    inputs: Inputs, columns: Columns, *, strict: bool = False, may_lack: bool = False
) -> Iterator[Pair | Reject]:
    """Read every pair of the inputs, in order.

    Args:
        inputs: Files, globs, folders or URLs, see ``find_sources``; or rows as dictionaries.
        columns: Which columns hold what.
        strict: Raise on the first row that would be rejected.
        may_lack: Whether named columns of negatives and tasks may be in none of the files.

    Raises:
        InputError: A file cannot be parsed, or no row of a non-empty file is usable, or ``strict`` and a bad row, or a
            named column is in no file.
    """
    named = set() if may_lack else {name for name in (columns.task_column, *columns.negative_column) if name}
    names = []
    for name, rows in _inputs(inputs, _wanted(columns)):
        names.append(name)
        yield from _read_file(name, rows, columns, strict=strict, unseen=named)
    if named and names:
        raise InputError(
            f"No row has the column {min(named)!r}",
            where=", ".join(names[:3]),
            fix="check the spelling of --negative-column and --task-column",
        )


def _inputs(inputs: Inputs, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Iterator[Row]]]:
    """The name and rows of each file; rows from Python are one input named ``rows``."""
    each = iter([inputs] if isinstance(inputs, (str, PathLike)) else inputs)
    first = next(each, None)
    if first is None or isinstance(first, (str, PathLike)):
        files = [] if first is None else [fspath(name) for name in chain([first], each)]  # type: ignore[arg-type]
        yield from ((source.name, read_rows(source, wanted)) for source in find_sources(files))
    else:
        rows = enumerate(chain([first], each), 1)
        yield "rows", ((line, dict(row) if isinstance(row, Mapping) else "wrong type") for line, row in rows)


def _read_file(
    name: str, rows: Iterator[Row], columns: Columns, *, strict: bool, unseen: set[str]
) -> Iterator[Pair | Reject]:
    """Pairs and rejects of a file; takes the columns that it has from ``unseen``."""
    used, line, reasons, seen = 0, 0, Counter[str](), None
    for line, fields in rows:
        try:
            if isinstance(fields, str):
                raise _BadRow(fields)
            seen = seen or list(fields)
            if unseen:
                unseen.difference_update(fields)
            pairs = list(_pairs(fields, columns))
        except _BadRow as bad:
            reason = str(bad)
            if strict:
                raise InputError(
                    f"Bad row: {reason}",
                    where=f"{name}, line {line}",
                    fix="mend the row, or leave out --strict: such rows are then left out, and counted",
                ) from None
            reasons[reason] += 1
            yield Reject(name, line, reason)
            if not used and line >= GIVE_UP_AFTER:
                break
            continue
        used += 1
        yield from pairs
    if reasons and not used:
        raise InputError(
            f"No row of the file{'' if line < GIVE_UP_AFTER else ' so far'} is usable: "
            + ", ".join(f"{count} {reason}" for reason, count in reasons.items()),
            where=name + (f", columns {', '.join(seen[:20])}" if seen else ", line 1"),
            fix=FIXES.get(reasons.most_common(1)[0][0], NAME_COLUMNS),
        )


def _wanted(columns: Columns) -> Callable[[str], bool]:
    names = {columns.anchor_column, columns.positive_column, columns.task_column, *columns.negative_column}
    names |= {*ANCHOR_NAMES, *POSITIVE_NAMES, *NEGATIVE_NAMES, *TASK_NAMES}
    return lambda name: name in names or NEGATIVE_NUMBERED.fullmatch(name) is not None


def _pairs(fields: Fields, columns: Columns) -> Iterator[Pair]:
    """One pair for each positive of a row; raises _BadRow."""
    anchor = _pick(fields, columns.anchor_column, ANCHOR_NAMES)
    positive = _pick(fields, columns.positive_column, POSITIVE_NAMES)
    negatives = [fields.get(name) for name in columns.negative_column or _negative_names(fields)]
    if isinstance(anchor, list):  # MEDI: every text is [instruction, text]; the instruction is left out
        anchor, positive, negatives = _second(anchor), _second(positive), [_second(n) for n in negatives if n]
    anchor = _checked(anchor)
    task = _pick(fields, columns.task_column, TASK_NAMES)
    if task is not None:
        task = _checked(str(task) if isinstance(task, int) else task)
    texts = tuple(_checked(text) for value in negatives for text in _as_list(value) if text is not None)
    positives = _as_list(positive) or [None]
    if len(positives) * (2 + len(texts)) > MOST_TEXTS_A_ROW:
        raise _BadRow("too many texts")
    for each in positives:
        text = _checked(each)
        if text == anchor:
            raise _BadRow("anchor equals positive")
        yield Pair(anchor, text, texts, task)


def _pick(fields: Fields, name: str | None, names: tuple[str, ...]) -> Any:  # noqa: ANN401 (any cell)
    if name is not None:
        return fields.get(name)
    return next((fields[each] for each in names if each in fields), None)


def _negative_names(fields: Fields) -> list[str]:
    numbered = sorted((int(match[1]), name) for name in fields if (match := NEGATIVE_NUMBERED.fullmatch(name)))
    return [name for name in NEGATIVE_NAMES if name in fields] + [name for _, name in numbered]


def _second(value: Any) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise _BadRow("wrong type")
    return value[1]


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _checked(text: Any) -> str:  # noqa: ANN401
    if text is None:
        raise _BadRow("missing text")
    if not isinstance(text, str):
        raise _BadRow("wrong type")
    if not text:
        raise _BadRow("empty text")
    if text.isspace():
        raise _BadRow("blank text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRow("not UTF-8") from None
    return text
