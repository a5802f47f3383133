"""Rows -> training pairs: which column is what, and which rows are refused and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import InputError
from .columns import Columns
from .readers import Fields, Inputs, Row, read_inputs

ANCHOR_NAMES = ("anchor", "query")
POSITIVE_NAMES = ("positive", "pos")
NEGATIVE_NAMES = ("negative", "neg")
NEGATIVE_NUMBERED = re.compile(r"negative_(\d{1,9})")
TASK_NAMES = ("task", "task_name")

# Each positive makes a pair with all negatives of its row, which might fill the memory.
MAX_TEXTS_PER_ROW = 100_000

NAME_COLUMNS = "name its columns with --anchor-column and --positive-column"
# What to do about a file without a usable row, by the reason for which most of its rows are refused.
FIXES = {
    "not UTF-8": "save the file as UTF-8",
    "not JSON": "write one JSON object a line; a glob such as 'FOLDER/*.jsonl' leaves out what holds no pairs",
    "wrong number of columns": "give every row as many cells as the header has",
    "too many texts": f"give a row {MAX_TEXTS_PER_ROW:,} texts at most",
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
    """Read every pair of the inputs, in order.

    Args:
        inputs: Files, globs, folders or URLs; or rows: a ``datasets.Dataset`` or an iterable of dictionaries.
        columns: Which columns hold what.
        strict: Raise on the first row that would be rejected.
        may_lack: Whether named columns of negatives and tasks may be missing from all inputs.

    Raises:
        InputError: A file cannot be parsed, or no row of a non-empty file is usable, or ``strict`` and a bad row, or a
            named column is in no file.
    """
    missing = set() if may_lack else {name for name in (columns.task_column, *columns.negative_column) if name}
    names = []
    for name, rows in read_inputs(inputs, _is_needed(columns)):
        names.append(name)
        yield from _pairs_of_input(name, rows, columns, strict=strict, missing=missing)
    if missing:
        raise InputError(
            f"No row has the column {min(missing)!r}",
            where=", ".join(names[:3]),
            fix="check the spelling of --negative-column and --task-column",
        )


def _pairs_of_input(
    name: str, rows: Iterator[Row], columns: Columns, *, strict: bool, missing: set[str]
) -> Iterator[Pair | Reject]:
    """Pairs and rejects of one input; takes the columns that it has from ``missing``."""
    used, reasons, header = 0, Counter[str](), None
    for line, fields in rows:
        try:
            if isinstance(fields, str):
                raise _BadRow(fields)
            header = header or list(fields)
            missing.difference_update(fields)
            pairs = list(_pairs_of_row(fields, columns))
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
        else:
            used += 1
            yield from pairs
    if reasons and not used:
        raise InputError(
            "No row is usable: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()),
            where=name + (f", columns {', '.join(header[:20])}" if header else ", line 1"),
            fix=FIXES.get(reasons.most_common(1)[0][0], NAME_COLUMNS),
        )


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
    positives = _as_list(positive) or [None]
    if len(positives) * (2 + len(texts)) > MAX_TEXTS_PER_ROW:
        raise _BadRow("too many texts")
    for each in positives:
        text = _valid(each)
        if text == anchor:
            raise _BadRow("anchor equals positive")
        yield Pair(anchor, text, texts, task)


def _first_of(fields: Fields, name: str | None, names: tuple[str, ...]) -> Any:  # noqa: ANN401 (any cell)
    """The cell of the named column, or of the first of the usual names that the row has."""
    return next((fields[each] for each in ([name] if name is not None else names) if each in fields), None)


def _negative_names(fields: Fields) -> list[str]:
    numbered = sorted((int(match[1]), name) for name in fields if (match := NEGATIVE_NUMBERED.fullmatch(name)))
    return [name for name in NEGATIVE_NAMES if name in fields] + [name for _, name in numbered]


def _without_instruction(value: Any) -> Any:  # noqa: ANN401
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise _BadRow("wrong type")
    return value[1]


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


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
