"""Rows of every known layout -> pairs, and what is refused."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, DatasetDict
from gistcache.shared.data.columns import Columns
from gistcache.shared.data.pairs import Pair, Reject, read_pairs
from gistcache.shared.errors import InputError

from tests.conftest import write_jsonl

GOOD = {"anchor": "a", "positive": "p"}


def pairs_of(tmp_path, *rows: dict, columns: Columns | None = None, strict: bool = False) -> list[Pair | Reject]:
    return list(read_pairs([str(write_jsonl(tmp_path / "a.jsonl", list(rows)))], columns or Columns(), strict=strict))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"anchor": "a", "positive": "p"}, [Pair("a", "p", (), None)]),
        ({"anchor": "a", "positive": "p", "negative": "n", "task": "t"}, [Pair("a", "p", ("n",), "t")]),
        (
            {"anchor": "a", "positive": "p", "negative_2": "y", "negative_10": "z", "negative_1": "x"},
            [Pair("a", "p", ("x", "y", "z"), None)],
        ),
        (
            {"query": "a", "pos": ["p", "q"], "neg": ["n", "m"], "pos_scores": [1, 2]},
            [Pair("a", "p", ("n", "m"), None), Pair("a", "q", ("n", "m"), None)],
        ),
        (
            {"query": ["say:", "a"], "pos": ["say:", "p"], "neg": ["say:", "n"], "task_name": "t"},
            [Pair("a", "p", ("n",), "t")],
        ),
        ({"anchor": "a", "positive": "p", "negative": None, "task": 7}, [Pair("a", "p", (), "7")]),
    ],
)
def test_layouts(tmp_path, row, expected):
    assert pairs_of(tmp_path, row) == expected


@pytest.mark.parametrize(
    "make", [list, iter, Dataset.from_list, lambda rows: Dataset.from_list(rows).to_iterable_dataset()]
)
def test_rows_from_python_are_pairs_as_those_of_a_file_are(tmp_path, make):
    rows = [{"query": "a", "pos": ["p", "q"], "neg": ["n"]}, {"query": "b", "pos": [], "neg": []}]
    expected = [Pair("a", "p", ("n",), None), Pair("a", "q", ("n",), None), Reject("rows", 2, "missing text")]
    assert list(read_pairs(make(rows), Columns())) == expected
    assert [row for row in pairs_of(tmp_path, *rows) if isinstance(row, Pair)] == expected[:2]


def test_rows_from_python_that_cannot_be_rows_are_named():
    assert list(read_pairs([GOOD, 7, {1: "a"}], Columns()))[1:] == [
        Reject("rows", 2, "wrong type"),
        Reject("rows", 3, "missing text"),
    ]
    with pytest.raises(InputError, match="no list of rows") as raised:
        list(read_pairs(DatasetDict(train=Dataset.from_list([GOOD])), Columns()))
    assert "train" in raised.value.where
    with pytest.raises(InputError, match="No input"):
        list(read_pairs([], Columns()))


def test_a_path_is_an_input_as_its_name_is(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD])
    for inputs in (path, str(path), [path]):
        assert list(read_pairs(inputs, Columns())) == [Pair("a", "p", (), None)]


def test_columns_of_any_other_name(tmp_path):
    columns = Columns(anchor_column="q", positive_column="d", negative_column=("x", "y"), task_column="kind")
    row = {"q": "a", "d": "p", "x": "n", "y": ["m", "o"], "kind": "k", "anchor": "other"}
    assert pairs_of(tmp_path, row, columns=columns) == [Pair("a", "p", ("n", "m", "o"), "k")]
    for mistyped in (Columns(negative_column=("x", "z")), Columns(task_column="z")):
        with pytest.raises(InputError, match="No row has the column 'z'"):
            pairs_of(tmp_path, {"anchor": "a", "positive": "p", "x": "n"}, columns=mistyped)


REFUSED = [
    ({"positive": "p"}, "missing text"),
    ({"anchor": None, "positive": "p"}, "missing text"),
    ({"anchor": "a", "positive": []}, "missing text"),
    ({"anchor": "", "positive": "p"}, "empty text"),
    ({"anchor": "a", "positive": " \n\u3000"}, "blank text"),
    ({"anchor": "a", "positive": 7}, "wrong type"),
    ({"anchor": {"text": "a"}, "positive": "p"}, "wrong type"),
    ({"anchor": "a", "positive": "p", "task": ["t"]}, "wrong type"),
    ({"anchor": "same", "positive": "same"}, "anchor equals positive"),
    ({"anchor": "a", "positive": "p", "negative": ""}, "empty text"),
    ({"query": ["only"], "pos": ["say:", "p"]}, "wrong type"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSED)
def test_a_refused_row_says_file_line_and_reason_and_the_others_stay(tmp_path, row, reason):
    first, second = pairs_of(tmp_path, GOOD, row)
    assert first == Pair("a", "p", (), None)
    assert isinstance(second, Reject)
    assert (second.file, second.line, second.reason) == (str(tmp_path / "a.jsonl"), 2, reason)


def test_texts_that_are_no_utf8_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    lone_surrogate = json.dumps({"anchor": "\ud800", "positive": "p"}).encode()
    path.write_bytes(b'{"anchor": "a", "positive": "\xff"}\n' + lone_surrogate + b"\n" + json.dumps(GOOD).encode())
    rows = list(read_pairs([str(path)], Columns()))
    assert [each.reason for each in rows if isinstance(each, Reject)] == ["not UTF-8", "not UTF-8"]
    assert len(rows) == 3


@pytest.mark.parametrize(("row", "reason"), REFUSED)
def test_strict_makes_the_first_bad_row_an_error(tmp_path, row, reason):
    with pytest.raises(InputError, match=reason) as raised:
        pairs_of(tmp_path, GOOD, row, strict=True)
    assert "a.jsonl, line 2" in str(raised.value)
    assert "--strict" in raised.value.fix


def test_a_file_without_one_usable_row_is_an_error_that_names_its_columns(tmp_path):
    with pytest.raises(InputError, match="question, answer") as raised:
        pairs_of(tmp_path, {"question": "a", "answer": "p"}, {"question": "b", "answer": "q"})
    assert "--anchor-column" in str(raised.value.fix)


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("a.csv", "anchor,positive\ncafé,thé\n", "save the file as UTF-8"),
        ("a.json", "{\n", "one JSON object a line"),
        ("a.tsv", "anchor\tpositive\na\n", "as many cells"),
    ],
)
def test_what_to_do_about_a_file_follows_from_why_its_rows_are_refused(tmp_path, name, content, fix):
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as raised:
        list(read_pairs([str(tmp_path / name)], Columns()))
    assert fix in raised.value.fix
    assert "--anchor-column" not in raised.value.fix
