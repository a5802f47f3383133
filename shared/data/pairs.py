"""Rows -> training pairs: which column is what, and which rows are refused and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import InputError
from .columns import Columns
from .readers import Fields, Inputs, Row, read_inputs

ANCHOR_NAMES = ("anchor", "query")
POSITIVE_NAMES = ("positive", "pos")
NEGATIVE_NAMES = ("negative", "neg")
NEGATIVE_NUMBERED = re.compile(r"negative_(\d{1,9})")
TASK_NAMES = ("task", "task_name")
NAME_COLUMNS = "name its columns with --anchor-column and --positive-column"
# What to do about a file without a usable row, by the reason for which most of its rows are refused.
FIXES = {
    "not UTF-8": "save the file as UTF-8",
    "not JSON": "write one JSON object a line; a glob such as 'FOLDER/*.jsonl' leaves out what holds no pairs",
    "wrong number of columns": "give every row as many cells as the header has",
    "anchor equals positive": f"{NAME_COLUMNS}, or give pairs of two different texts",
}


class Pair(NamedTuple):
    """One training row."""

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    task: str | None


class Reject(NamedTuple):
    """An input row that is not used; for rows from Python, ``file`` is "rows" and ``line`` the row's number."""

    file: str
    line: int
    reason: str


class _BadRow(Exception):  # noqa: N818 (control flow inside this file)
    """Carries the reason for a rejection."""


def read_pairs(
    inputs: Inputs, columns: Columns, *, strict: bool = False, may_lack: bool = False
) -> Iterator[Pair | Reject]:
    """Read every pair of files, globs, folders or URLs, or of rows from Python, in order.

    With ``strict`` the first row that would be rejected is an error; with ``may_lack``, all inputs may lack the named
    columns of negatives and tasks. Raises InputError also where a file cannot be parsed or has no usable row.
    """
    named = set() if may_lack else {name for name in (columns.task_column, *columns.negative_column) if name}
    seen = set[str]()
    for name, rows in read_inputs(inputs, _is_needed(columns)):
        yield from _pairs_of_input(name, rows, columns, seen, strict=strict)
    if missing := named - seen:
        where = "--negative-column or --task-column"
        raise InputError(f"No row has the column {min(missing)!r}", where=where, fix="check the spelling")


def _pairs_of_input(
    name: str, rows: Iterator[Row], columns: Columns, seen: set[str], *, strict: bool
) -> Iterator[Pair | Reject]:
    used, reasons, header = 0, Counter[str](), None
    for line, fields in rows:
        try:
            if isinstance(fields, str):
                raise _BadRow(fields)
            header = header or list(fields)
            seen.update(fields)
            pairs = list(_pairs_of_row(fields, columns))
        except _BadRow as bad:
            reason = str(bad)
            if strict:
                fix = "mend the row, or leave out --strict: such rows are then left out, and counted"
                raise InputError(f"Bad row: {reason}", where=f"{name}, line {line}", fix=fix) from None
            reasons[reason] += 1
            yield Reject(name, line, reason)
        else:
            used += 1
            yield from pairs
    if reasons and not used:
        what = "No row is usable: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        where = name + (f", columns {', '.join(header[:20])}" if header else ", line 1")
        raise InputError(what, where=where, fix=FIXES.get(reasons.most_common(1)[0][0], NAME_COLUMNS))


def _is_needed(columns: Columns) -> Callable[[str], bool]:
    names = {columns.anchor_column, columns.positive_column, columns.task_column, *columns.negative_column}
    names |= {*ANCHOR_NAMES, *POSITIVE_NAMES, *NEGATIVE_NAMES, *TASK_NAMES}
    return lambda name: name in names or NEGATIVE_NUMBERED.fullmatch(name) is not None


def _pairs_of_row(fields: Fields, columns: Columns) -> Iterator[Pair]:
    """One pair for each positive of a row; raises _BadRow."""
    anchor = _first_of(fields, columns.anchor_column, ANCHOR_NAMES)
    positive = _first_of(fields, columns.positive_column, POSITIVE_NAMES)
    negatives = [fields.get(name) for name in columns.negative_column or _negative_names(fields)]
    if isinstance(anchor, list):  # MEDI: every text is [instruction, text]; the instruction is left out
        anchor, positive, *negatives = (_without_instruction(each) for each in (anchor, positive, *negatives))
    anchor = _valid(anchor)
    task = _first_of(fields, columns.task_column, TASK_NAMES)
    if task is not None:
        task = _valid(str(task) if isinstance(task, int) else task)
    texts = tuple(_valid(text) for value in negatives for text in _as_list(value) if text is not None)
    for each in _as_list(positive) or [None]:
        text = _valid(each)
        if text == anchor:
            raise _BadRow("anchor equals positive")
        yield Pair(anchor, text, texts, task)


def _first_of(fields: Fields, name: str | None, names: tuple[str, ...]) -> Any:  # noqa: ANN401 (any cell)
    return next((fields[each] for each in ([name] if name is not None else names) if each in fields), None)


def _negative_names(fields: Fields) -> list[str]:
    numbered = sorted((int(match[1]), name) for name in fields if (match := NEGATIVE_NUMBERED.fullmatch(name)))
    return [name for name in NEGATIVE_NAMES if name in fields] + [name for _, name in numbered]


def _without_instruction(value: Any) -> Any:  # noqa: ANN401
    if value and not (isinstance(value, list) and len(value) == 2):
        raise _BadRow("wrong type")
    return value[1] if value else None


def _as_list(value: Any) -> Sequence[Any]:  # noqa: ANN401
    return [] if value is None else value if isinstance(value, (list, tuple)) else [value]


def _valid(text: Any) -> str:  # noqa: ANN401
    """The text as it is; raises _BadRow unless it is one that can be embedded."""
    if text is None:
        raise _BadRow("missing text")
    if not isinstance(text, str):
        raise _BadRow("wrong type")
    if not text.strip():
        raise _BadRow("blank text" if text else "empty text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRow("not UTF-8") from None
    return text
