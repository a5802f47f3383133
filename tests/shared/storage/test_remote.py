"""Files in a storage that fsspec reaches: its own memory."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from gistcache.shared.errors import IndexFaultError, StorageError
from gistcache.shared.storage.integrity import FileRecord
from gistcache.shared.storage.remote import Remote, is_url


@pytest.fixture
def remote() -> Remote:
    return Remote.of(f"memory://{uuid.uuid4().hex}/index/")


def test_files_go_up_come_down_and_go_away(tmp_path, remote):
    (tmp_path / "a").write_bytes(b"abc")
    for name in ("one", "folder/two"):
        remote.put(tmp_path / "a", name)
    assert remote.sizes() == {"one": 3, "folder/two": 3}
    record = FileRecord("folder/two", 1, 3, hashlib.sha256(b"abc").hexdigest())
    remote.fetch_all(tmp_path / "here", [record])
    assert (tmp_path / "here" / "folder" / "two").read_bytes() == b"abc"
    for wrong in (FileRecord("one", 1, 3, "0" * 64), FileRecord("one", 1, 2, record.sha256)):
        with pytest.raises(IndexFaultError, match="not the one that the manifest records"):
            remote.fetch(tmp_path / "here", wrong)
    assert not (tmp_path / "here" / "one").exists()
    assert [remote.exists(name) for name in ("", "one", "folder", "folder/one")] == [True, True, True, False]
    remote.remove("folder")
    remote.remove("folder")
    assert not remote.exists("folder")
    assert remote.sizes() == {"one": 3}


def test_what_the_storage_does_not_do_is_named(tmp_path, remote):
    with pytest.raises(StorageError, match="did not download") as caught:
        remote.get("nothing", tmp_path / "x")
    assert caught.value.where == f"{remote.url}/nothing"


def test_urls_are_told_from_paths():
    assert is_url("s3://bucket/index")
    assert not is_url("index/of:mine")
    with pytest.raises(StorageError, match="no file system"):
        Remote.of("nosuch://bucket/index")
