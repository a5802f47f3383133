"""Properties of the readers, over whatever hypothesis can think of: written rows come back, and no input is fatal."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from gistcache.shared.data.columns import Columns
from gistcache.shared.data.pairs import Pair, Reject, read_pairs
from gistcache.shared.errors import InputError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RUN = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: not text.isspace()
)
PAIRS = st.lists(st.tuples(TEXT, TEXT).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=8)
# A delimited file has one way to write a line break, and none to write a lone carriage return or a zero byte.
CELL = TEXT.filter(lambda text: not set(text) & {"\r", "\0"})
CELLS = st.lists(st.tuples(CELL, CELL).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["anchor", "positive", "negative", "negative_2", "query", "pos", "neg", "task", "x"])


def pairs_of(path) -> list[tuple[str, str]]:
    return [(row.anchor, row.positive) for row in read_pairs([str(path)], Columns()) if isinstance(row, Pair)]


def table_of(pairs: list[tuple[str, str]]) -> pa.Table:
    anchors, positives = zip(*pairs, strict=True)
    return pa.table({"anchor": pa.array(anchors, pa.string()), "positive": pa.array(positives, pa.string())})


@RUN
@given(PAIRS, st.booleans())
def test_json_lines_and_parquet_come_back_as_they_were(tmp_path_factory, pairs, escaped):
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"anchor": a, "positive": p}, ensure_ascii=escaped) + "\n" for a, p in pairs]
    (folder / "a.jsonl").write_text("".join(lines), encoding="utf-8", newline="")
    pq.write_table(table_of(pairs), folder / "a.parquet")
    assert pairs_of(folder / "a.jsonl") == pairs
    assert pairs_of(folder / "a.parquet") == pairs


@RUN
@given(CELLS, st.sampled_from([",", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_delimited_files_come_back_as_they_were(tmp_path_factory, pairs, delimiter, line_end):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    writer.writerows([("anchor", "positive"), *pairs])
    path = tmp_path_factory.mktemp("cells") / ("a.tsv" if delimiter == "\t" else "a.csv")
    path.write_bytes(out.getvalue().encode())
    assert pairs_of(path) == pairs


@RUN
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=5) | JSON, max_size=8))
def test_every_json_row_is_a_pair_or_a_counted_reject(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    try:
        rows = list(read_pairs([str(path)], Columns()))
    except InputError:
        return
    lines = {row.line for row in rows if isinstance(row, Reject)}
    assert all(isinstance(row, Pair | Reject) for row in rows)
    assert lines <= set(range(1, len(values) + 1))


@RUN
@given(st.binary(max_size=400), st.sampled_from(["jsonl", "csv", "tsv", "parquet", "jsonl.gz", "csv.zst"]))
def test_bytes_of_any_kind_end_in_rows_or_in_an_input_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"a.{suffix}"
    path.write_bytes(data)
    try:
        list(read_pairs([str(path)], Columns()))
    except InputError as error:
        assert path.name in str(error)  # noqa: PT017 (both ends are allowed)
