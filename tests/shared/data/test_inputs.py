"""Which files a command means."""

from __future__ import annotations

import gzip

import pytest
from gistcache.shared.data.columns import Columns
from gistcache.shared.data.inputs import find_sources
from gistcache.shared.data.pairs import read_pairs
from gistcache.shared.errors import InputError


def names(sources) -> list[str]:
    return [source.path.rsplit("/", 1)[1] for source in sources]


def test_a_folder_gives_its_known_files_by_name_and_leaves_hidden_ones(tmp_path):
    for name in ("b.jsonl", "a.csv", "readme.md", ".hidden.jsonl", "_temporary.csv"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.tsv.gz").write_bytes(gzip.compress(b""))
    sources = find_sources([str(tmp_path)])
    assert names(sources) == ["a.csv", "b.jsonl", "c.tsv.gz"]
    assert [(each.format, each.compression) for each in sources] == [("csv", None), ("jsonl", None), ("tsv", "gzip")]


def test_inputs_keep_their_order_and_a_file_named_twice_counts_once(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert names(find_sources([str(tmp_path / "b.jsonl"), str(tmp_path / "*.jsonl")])) == ["b.jsonl", "a.jsonl"]


@pytest.mark.parametrize("name", ["missing.jsonl", "missing-*.jsonl", "empty-folder", "notes.txt", "pairs.parquet.gz"])
def test_what_is_not_there_or_of_no_known_format_is_named(tmp_path, name):
    (tmp_path / "empty-folder").mkdir()
    for each in ("notes.txt", "pairs.parquet.gz"):
        (tmp_path / each).write_text("x", encoding="utf-8")
    with pytest.raises(InputError) as raised:
        find_sources([str(tmp_path / name)])
    assert name in str(raised.value)
    assert raised.value.fix


def test_a_hub_path_goes_as_far_as_the_download(monkeypatch):
    """No hub answers here: the error names the path and says what to check."""
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.repo_info", refuse)
    path = "hf://datasets/nobody/pairs/train.parquet"
    with pytest.raises(InputError) as raised:
        list(read_pairs([path], Columns()))
    assert path in str(raised.value)
    assert raised.value.fix
    assert raised.value.exit_code == 3


def refuse(*_, **__):
    raise ConnectionError("no hub here")
