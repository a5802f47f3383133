"""Indexes of version 1: refused by readers with what to do, and open to `--reuse`."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from gistcache.shared.cli.verify import verify
from gistcache.shared.errors import IndexFaultError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.reusable_vectors import ReusableVectors

from tests.shared.guide_index.index_folder import small, text_hash

# What only version 1 has; no reader of vectors may trip over it.
ONLY_IN_1 = {"unrounded": [np.zeros(1, dtype=[("pair", "<i8"), ("anchor", "<f4", (4,)), ("positive", "<f4", (4,))])]}


def test_readers_refuse_version_1_with_the_command_that_keeps_its_vectors(tmp_path):
    root = small().write(tmp_path / "old", version=1)
    for read in (GuideIndex.open, lambda path: verify(str(path))):
        with pytest.raises(IndexFaultError, match="format version 1; this program reads 2") as caught:
            read(root)
        assert caught.value.where == str(root / "manifest.json")
        assert "`gistcache index PAIRS --guide MODEL --reuse OLD --out NEW`" in caught.value.fix
        assert "\n" not in caught.value.fix


@pytest.mark.parametrize("version", [1, 2])
def test_vectors_and_hashes_of_both_versions_can_be_reused(tmp_path, version):
    folder = small()
    if version == 1:
        folder.shards |= ONLY_IN_1
    old = ReusableVectors.open(folder.write(tmp_path / "old", version=version))
    assert old.guide == folder.guide
    assert old.vector_dtype == "float16"
    assert np.array_equal(old.vectors.take(np.arange(7)), folder.vectors)
    rows = [row for table in old.text_tables(["role", "text_hash"]) for row in table.to_pylist()]
    assert rows[4] == {"role": "document", "text_hash": text_hash("red dog")}
    assert len(rows) == len(old.vectors) == 7


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_damaged_unfinished_or_unknown_is_not_reused(tmp_path, version):
    noun = {1: "part", 2: "shard"}[version]
    root = small().write(tmp_path / "old", version=version)
    shutil.copytree(root, tmp_path / "flipped")
    path = tmp_path / "flipped" / "vectors" / f"{noun}-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IndexFaultError, match=rf"vectors/{noun}-00001\.npy: checksum"):
        ReusableVectors.open(tmp_path / "flipped")
    shutil.copytree(root, tmp_path / "cut")
    (tmp_path / "cut" / "manifest.json").write_bytes((root / "manifest.json").read_bytes()[:-3])
    with pytest.raises(IndexFaultError, match="manifest is not readable"):
        ReusableVectors.open(tmp_path / "cut")
    (tmp_path / "cut" / "manifest.json").unlink()
    (tmp_path / "cut" / "building").mkdir()
    with pytest.raises(IndexFaultError, match="not finished"):
        ReusableVectors.open(tmp_path / "cut")
    changes = {
        "format version 3": lambda content: content.update({"format": 3}),
        "dimensions": lambda content: content["guide"].update({"dim": 0}),
        "differ in number": lambda content: content[f"{noun}s"]["texts"].pop(),
        "vectors'": lambda content: content[f"{noun}s"].pop("vectors"),
        "no path inside": lambda content: content[f"{noun}s"]["texts"][0].update({"path": "../outside"}),
    }
    for number, (message, change) in enumerate(changes.items()):
        changed = small().write(tmp_path / str(number), version=version, change=change)
        with pytest.raises(IndexFaultError) as caught:
            ReusableVectors.open(changed)
        assert message in str(caught.value)
