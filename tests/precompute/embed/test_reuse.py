"""Adding data: what an older index holds is taken, the rest is computed, and the bytes are those of a fresh build."""

from __future__ import annotations

import shutil

import pytest
from gistcache.precompute.build import build_index
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import IndexFaultError, StaleIndexError
from gistcache.shared.timing import Timings

from tests.conftest import build_test_index, make_model, random_pairs, write_jsonl
from tests.precompute.test_build import contents


def build(tmp_path, name, rows, guide, **settings):
    clock = Timings()
    source = write_jsonl(tmp_path / f"{name}.jsonl", rows)
    build_index([str(source)], IndexSettings(guide=str(guide), out=tmp_path / name, shard_rows=32, **settings), clock)
    return tmp_path / name, clock.texts


PAIR = ["anchor", "positive"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("prompts", [False, True])
def test_only_new_texts_are_embedded_and_the_bytes_are_those_of_a_fresh_build(
    tmp_path, guide_folder, prompted_guide_folder, prompts, dtype, monkeypatch
):
    guide = prompted_guide_folder if prompts else guide_folder
    rows = random_pairs(150, seed=60, negatives=1)
    rows += [{"anchor": rows[3]["positive"], "positive": rows[4]["anchor"], "negative_1": rows[5]["anchor"]}]
    old, _ = build(tmp_path, "old", rows[20:100], guide, vector_dtype=dtype)
    fresh, counts = build(tmp_path, "fresh", rows, guide, vector_dtype=dtype)
    assert set(counts) <= {"computed", "same text as an anchor"}
    embedded = []
    original = ModelGuide.encode
    monkeypatch.setattr(
        ModelGuide, "encode", lambda self, texts, *rest: embedded.extend(texts) or original(self, texts, *rest)
    )
    added, counts = build(tmp_path, "added", rows, guide, reuse=old, vector_dtype=dtype)
    assert contents(added) == contents(fresh)
    assert counts["taken from the older index"] > 100
    # Of negatives the older index has rounded vectors only; where one is now a positive of the sample, it comes again.
    held, negatives = ({row[name] for row in rows[20:100] for name in names} for names in (PAIR, ["negative_1"]))
    again = (held | negatives) & set(embedded)
    if not prompts:
        assert again <= negatives - held
        assert counts["computed"] == len(embedded) - len(again)


def test_an_older_index_of_another_guide_is_refused(tmp_path, guide_folder):
    rows = random_pairs(20, seed=61)
    other = make_model(tmp_path / "guide", dim=32, seed=99)
    old = build_test_index(tmp_path / "old", rows, other)
    with pytest.raises(StaleIndexError) as caught:
        build(tmp_path, "new", rows, guide_folder, reuse=old)
    assert "guide.files.model.safetensors: the older index has" in str(caught.value)
    with pytest.raises(StaleIndexError, match=r"guide\.max_length"):
        build(tmp_path, "short", rows, other, reuse=old, max_length=8)
    with pytest.raises(StaleIndexError, match=r"vector_dtype: the older index has 'float16', command asks for 'int8'"):
        build(tmp_path, "smaller", rows, other, reuse=old, vector_dtype="int8")


def test_a_damaged_older_index_is_refused(tmp_path, guide_folder):
    rows = random_pairs(20, seed=62)
    old = build_test_index(tmp_path / "old", rows, guide_folder)
    hurt = tmp_path / "hurt"
    shutil.copytree(old, hurt)
    part = hurt / "vectors" / "shard-00000.npy"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(IndexFaultError, match=r"vectors/shard-00000\.npy: checksum"):
        build(tmp_path, "new", rows, guide_folder, reuse=hurt)
