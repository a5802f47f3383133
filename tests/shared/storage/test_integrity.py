"""Checksums of JSON lines and of files, and what is remembered of files that were verified."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from gistcache.shared.errors import IndexFaultError
from gistcache.shared.storage import integrity
from gistcache.shared.storage.integrity import FileRecord, damage, refuse_damaged
from gistcache.shared.storage.journal import checksummed_line, intact_lines


def test_a_line_is_its_checksum_and_json_and_no_flipped_bit_goes_unseen():
    line = checksummed_line({"path": "a", "rows": 3})
    digits, text = line.split(b" ", 1)
    assert digits.decode() == hashlib.sha256(text).hexdigest()[:16]
    assert json.loads(text) == {"path": "a", "rows": 3}
    assert list(intact_lines(b"\n" + line + b"\n" + line[:-1])) == [{"path": "a", "rows": 3}]
    for place in range(len(line) * 8):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        assert list(intact_lines(bytes(flipped))) == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small and a large file with their records; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity, "SMALL_BYTES", 10)
    root = tmp_path / "root"
    root.mkdir()
    records = []
    for name, data in (("small", b"1234"), ("large", b"x" * 100)):
        (root / name).write_bytes(data)
        records.append(FileRecord(name, 1, len(data), hashlib.sha256(data).hexdigest()))
    return root, records


def flip(path, *, keep_time: bool):
    stat = path.stat()
    path.write_bytes(b"y" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (0 if keep_time else 1)))


def test_missing_sizes_and_checksums_are_told_apart(folder):
    root, records = folder
    assert damage(root, records) == []
    flip(root / "small", keep_time=True)
    assert damage(root, records, verify=False) == ["small: checksum differs from the one recorded"]
    (root / "small").write_bytes(b"12345")
    (root / "large").unlink()
    assert damage(root, records) == ["small: 5 bytes, 4 recorded", "large: missing"]
    with pytest.raises(IndexFaultError, match="small: 5 bytes"):
        refuse_damaged(root, records)


def test_large_files_are_read_once_until_they_are_written_again(folder):
    root, records = folder
    assert damage(root, records) == []
    flip(root / "large", keep_time=True)  # as a disk does that loses a bit
    assert damage(root, records) == []
    assert damage(root, records, verify=True) == ["large: checksum differs from the one recorded"]
    flip(root / "large", keep_time=False)
    assert damage(root, records, verify=False) == []
    assert damage(root, records) == ["large: checksum differs from the one recorded"]
