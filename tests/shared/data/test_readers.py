"""Every format through its own reader, whole and damaged."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gistcache.shared.data.inputs import find_sources
from gistcache.shared.data.readers import read_rows
from gistcache.shared.errors import InputError

ROWS = [
    {"anchor": "plain", "positive": "two words"},
    {"anchor": 'quote " comma ,', "positive": "tab\tand line\nbreak"},
    {"anchor": "ümlaut 漢字 🙂", "positive": "  spaces kept  "},
]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = (
    'anchor,positive\r\nplain,two words\r\n"quote "" comma ,","tab\tand line\nbreak"\r\n'
    "ümlaut 漢字 🙂,  spaces kept  \r\n"
).encode()
TSV = (
    'anchor\tpositive\nplain\ttwo words\n"quote "" comma ,"\t"tab\tand line\nbreak"\nümlaut 漢字 🙂\t  spaces kept  \n'
).encode()


def rows_of(path) -> list:
    (source,) = find_sources([str(path)])
    return list(read_rows(source, lambda name: True))


def written(tmp_path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", JSONL), ("a.csv", CSV), ("a.tsv", TSV)])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstd)])
def test_delimited_formats_give_the_same_rows_plain_and_compressed(tmp_path, name, content, suffix, pack):
    assert [fields for _, fields in rows_of(written(tmp_path, name + suffix, pack(content)))] == ROWS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_gives_the_same_rows_whatever_its_string_type(tmp_path, kind):
    table = pa.table({name: pa.array([row[name] for row in ROWS]).cast(kind) for name in ("anchor", "positive")})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert rows_of(tmp_path / "a.parquet") == list(enumerate(ROWS, 1))


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    blank = b'{"anchor": "a", "positive": "b"}\n\n{"anchor": "c", "positive": "d"}\n'
    assert [line for line, _ in rows_of(written(tmp_path, "a.jsonl", blank))] == [1, 3]
    assert [line for line, _ in rows_of(written(tmp_path, "a.csv", CSV))] == [2, 3, 5]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_text(tmp_path, name):
    content = b'{"anchor": "a", "positive": "b"}\r\n' if name.endswith("jsonl") else b"anchor,positive\r\na,b\r\n"
    ((_, fields),) = rows_of(written(tmp_path, name, b"\xef\xbb\xbf" + content))
    assert fields == {"anchor": "a", "positive": "b"}


def test_a_bad_row_is_reported_and_the_rows_after_it_are_read(tmp_path):
    lines = [b'{"anchor": "a", "positive": "b"}', b"{not json", b"7", b'["c", "d", "e"]', b"[" * 100_000]
    rows = rows_of(written(tmp_path, "a.jsonl", b"\n".join(lines)))
    assert [line for line, _ in rows] == [1, 2, 3, 4, 5]
    assert [fields for _, fields in rows[1:3]] == ["not JSON", "wrong type"]
    assert rows[3][1] == {"anchor": "c", "positive": "d", "negative": ["e"]}
    assert rows[4][1] == "not JSON"
    ragged = rows_of(written(tmp_path, "a.csv", b"anchor,positive\na,b,c\nd,e\nf,\n"))
    assert ragged == [
        (2, "wrong number of columns"),
        (3, {"anchor": "d", "positive": "e"}),
        (4, {"anchor": "f", "positive": None}),
    ]


def test_a_byte_that_is_no_utf8_spoils_its_own_text_only(tmp_path):
    content = b'{"anchor": "a\xff", "positive": "b"}\n{"anchor": "c", "positive": "d"}\n'
    (_, first), (_, second) = rows_of(written(tmp_path, "a.jsonl", content))
    assert first == {"anchor": "a\udcff", "positive": "b"}
    assert second == {"anchor": "c", "positive": "d"}
    column = pa.array([b"a\xff", b"c"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"anchor": column, "positive": ["b", "d"]}), tmp_path / "a.parquet")
    assert [fields for _, fields in rows_of(tmp_path / "a.parquet")] == [first | {"anchor": "\udcff"}, second]


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


DAMAGED = {
    "zero.parquet": b"",
    "cut.parquet": parquet_bytes()[:-20],
    "no.parquet": b"anchor,positive\na,b\n",
    "cut.jsonl.gz": gzip.compress(JSONL * 500)[:-30],
    "no.jsonl.gz": JSONL,
    "cut.jsonl.zst": zstd(JSONL * 500)[:-10],
    "no.csv.zst": CSV,
    "open-quote.csv": b'anchor,positive\na,b\n"never closed,c\nd,e\n',
    "twice.csv": b"anchor,anchor\na,b\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_cannot_be_parsed_is_an_error_that_names_it(tmp_path, name):
    with pytest.raises(InputError) as raised:
        rows_of(written(tmp_path, name, DAMAGED[name]))
    assert name in str(raised.value)


def test_the_line_of_the_damage_is_named(tmp_path):
    with pytest.raises(InputError, match="line 3"):
        rows_of(written(tmp_path, "a.csv", DAMAGED["open-quote.csv"]))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("gistcache.shared.data.readers.MAX_LINE", 1000)
    with pytest.raises(InputError, match="line 2"):
        rows_of(written(tmp_path, "a.jsonl", b'{"anchor": "a", "positive": "b"}\n' + b"x" * 2000))
