"""The build journal: what is committed stays, whatever byte a crash cuts it at."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gistcache.shared.storage.journal import Journal, commit_rows


def test_a_journal_cut_anywhere_has_the_records_of_its_whole_lines(tmp_path):
    journal = Journal(tmp_path / "journal", tmp_path)
    records = [commit_rows(tmp_path, tmp_path / "a" / f"{n}.npy", np.arange(n + 1)) for n in range(3)]
    for record in records:
        journal.record(record)
    data = (tmp_path / "journal").read_bytes()
    ends = [end for end in range(len(data) + 1) if end == len(data) or data[end : end + 1] == b"\n"][1:]
    for cut in range(len(data)):
        (tmp_path / "journal").write_bytes(data[:cut])
        again = Journal(tmp_path / "journal", tmp_path)
        assert list(again.done.values()) == records[: sum(end <= cut for end in ends)]
    again.record(records[2])  # after a line that was cut short
    assert list(Journal(tmp_path / "journal", tmp_path).done.values()) == records


def test_a_file_that_changed_is_made_again_and_one_in_the_storage_counts(tmp_path, caplog):
    path = tmp_path / "t.parquet"
    journal, calls = Journal(tmp_path / "journal", tmp_path), []

    def make():
        calls.append(1)
        return commit_rows(tmp_path, path, pa.table({"n": [1, 2]}))

    record = journal.keep_or_make(path, make)
    assert (record.path, record.rows, record.bytes) == ("t.parquet", 2, path.stat().st_size)
    assert pq.read_table(path).to_pydict() == {"n": [1, 2]}
    assert Journal(tmp_path / "journal", tmp_path).keep_or_make(path, make) == record
    assert len(calls) == 1
    path.unlink()
    sizes = {"t.parquet": record.bytes}
    assert Journal(tmp_path / "journal", tmp_path, sizes).keep_or_make(path, make) == record
    with caplog.at_level(logging.WARNING):
        Journal(tmp_path / "journal", tmp_path, {"t.parquet": 1}).keep_or_make(path, make)
    assert "t.parquet: not in the storage: this shard is made again" in caplog.text
    assert len(calls) == 2
