"""The same pairs from any file format make the same index, byte for byte."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from gistcache.precompute import build_index
from gistcache.shared.errors import SettingsError
from gistcache.shared.progress import console

from tests.conftest import random_pairs, write_jsonl

ROWS = [row | {"task": "ab"[number % 2]} for number, row in enumerate(random_pairs(60, seed=9, negatives=2))]
ROWS[5] |= {"anchor": 'red, green "blue"\n dog', "task": None}
ROWS[6] |= {"positive": ROWS[8]["anchor"]}
ROWS[7] |= {"positive": "   "}


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "pairs.parquet", row_group_size=13)
    return folder / "pairs.parquet"


def as_jsonl(folder: Path) -> Path:
    return write_jsonl(folder / "pairs.jsonl", ROWS)


def as_jsonl_gz(folder: Path) -> Path:
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(as_jsonl(folder).read_bytes()))
    return folder / "pairs.jsonl.gz"


def as_jsonl_zst(folder: Path) -> Path:
    with pa.CompressedOutputStream(str(folder / "pairs.jsonl.zst"), "zstd") as stream:
        stream.write(as_jsonl(folder).read_bytes())
    return folder / "pairs.jsonl.zst"


def delimited(path: Path, delimiter: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def as_csv(folder: Path) -> Path:
    return delimited(folder / "pairs.csv", ",")


def as_tsv(folder: Path) -> Path:
    return delimited(folder / "pairs.tsv", "\t")


def as_a_folder_of_two_formats(folder: Path) -> Path:
    (folder / "both").mkdir()
    write_jsonl(folder / "both" / "1.jsonl", ROWS[:25])
    pq.write_table(pa.Table.from_pylist(ROWS[25:]), folder / "both" / "2.parquet")
    return folder / "both"


def index_bytes(pairs: Path, guide: Path, out: Path) -> dict[str, bytes]:
    """Every file of the index but the list of rejected rows, which names the input."""
    build_index(pairs, guide=str(guide), out=out, shard_rows=40, neighbors=5)
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    assert [row["reason"] for row in rejected] == ["blank text"]
    del found["rejected.parquet"], found["manifest.json"]
    return found


@pytest.fixture(scope="module")
def from_parquet(tmp_path_factory, guide_folder) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("parquet")
    return index_bytes(as_parquet(folder), guide_folder, folder / "index")


WRITERS = [as_jsonl, as_jsonl_gz, as_jsonl_zst, as_csv, as_tsv, as_a_folder_of_two_formats]


@pytest.mark.parametrize("write", WRITERS)
def test_an_index_from_one_format_equals_that_from_another(tmp_path, guide_folder, from_parquet, write):
    assert index_bytes(write(tmp_path), guide_folder, tmp_path / "index") == from_parquet


def test_rows_from_python_make_the_index_of_a_file(tmp_path, guide_folder, capsys):
    rows = ROWS[:7] + ROWS[8:]  # none is rejected, so that no file name is recorded
    inputs = {
        "file": write_jsonl(tmp_path / "pairs.jsonl", rows),
        "files": [write_jsonl(tmp_path / "1.jsonl", rows[:9]), str(write_jsonl(tmp_path / "2.jsonl", rows[9:]))],
        "rows": rows,
        "generator": (dict(row) for row in rows),
        "dataset": Dataset.from_list(rows),
    }
    indexes = {
        name: build_index(pairs, guide=str(guide_folder), out=tmp_path / name, neighbors=5, quiet=True)
        for name, pairs in inputs.items()
    }
    assert len({index.manifest.key for index in indexes.values()}) == 1
    assert len(indexes["rows"]) == len(rows)
    assert not console.quiet
    assert capsys.readouterr().out == ""


def test_a_finished_index_is_opened_as_it_is(tmp_path, guide_folder):
    settings = {"guide": str(guide_folder), "out": tmp_path / "index", "anchor_column": "q", "neighbors": 5}
    rows = [{"q": row["anchor"], "positive": row["positive"]} for row in ROWS[:5]]
    first = build_index(rows, **settings)
    stamp = first.layout.manifest.stat().st_mtime_ns
    assert build_index(iter(rows), **settings).manifest.key == first.manifest.key
    assert first.layout.manifest.stat().st_mtime_ns == stamp
    with pytest.raises(SettingsError, match="--neighbors"):
        build_index(rows, **settings | {"neighbors": 0})
    with pytest.raises(TypeError, match="neighbours"):
        build_index(rows, **settings, neighbours=5)
