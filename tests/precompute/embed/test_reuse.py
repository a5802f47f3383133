"""Adding data: vectors that an older index has are copied, the rest is computed; the index is that of a fresh build."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest
from gistcache.precompute import build_index
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.text_hash import TextRows, hash_text
from gistcache.shared.errors import IndexFaultError, StaleIndexError
from gistcache.shared.guide_index.guide_index import GuideIndex

from tests.conftest import build_test_index, make_model, random_pairs, random_texts
from tests.precompute.test_build import columns_of


def build(tmp_path, name, rows, guide, **settings) -> GuideIndex:
    return build_index(rows, guide=str(guide), out=tmp_path / name, shard_rows=32, **settings)


def sources(index: GuideIndex) -> dict[str, int]:
    """Texts by where their vectors came from."""
    summary = index.summary()
    assert summary
    return summary["vectors"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("prompts", [False, True])
def test_only_new_texts_are_embedded_and_the_index_is_that_of_a_fresh_build(
    tmp_path, guide_folder, prompted_guide_folder, prompts, dtype, monkeypatch
):
    guide = prompted_guide_folder if prompts else guide_folder
    rows = random_pairs(150, seed=60, negatives=1)
    rows += [{"anchor": rows[3]["positive"], "positive": rows[4]["anchor"], "negative_1": rows[5]["anchor"]}]
    old = build(tmp_path, "old", rows[20:100], guide, vector_dtype=dtype)
    fresh = build(tmp_path, "fresh", rows, guide, vector_dtype=dtype)
    assert set(sources(fresh)) <= {"computed", "same text as an anchor"}
    embedded = []
    original = ModelGuide.encode
    monkeypatch.setattr(
        ModelGuide, "encode", lambda self, texts, *rest: embedded.extend(texts) or original(self, texts, *rest)
    )
    added = build(tmp_path, "added", rows, guide, reuse=old.layout.root, vector_dtype=dtype)
    (texts, scores), (fresh_texts, fresh_scores) = columns_of(added), columns_of(fresh)
    assert texts == fresh_texts
    ids, step = np.arange(len(texts)), {"float16": 1e-3, "int8": 2e-2}[dtype]
    assert np.abs(added.vectors(ids).astype(np.float32) - fresh.vectors(ids)).max() <= step
    assert np.allclose(scores["positive_score"], fresh_scores["positive_score"], atol=step)
    assert sources(added)["taken from the older index"] > 100
    assert sources(added)["computed"] == len(embedded)
    if not prompts:  # else a text of the older index may be new in the other role
        assert not set(embedded) & {text for row in rows[20:100] for text in row.values()}
    assert added.manifest.measured["rounding"] == old.manifest.measured["rounding"]


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
    damaged = tmp_path / "damaged"
    shutil.copytree(old, damaged)
    shard = damaged / "vectors" / "shard-00000.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IndexFaultError, match=r"vectors/shard-00000\.npy: checksum"):
        build(tmp_path, "new", rows, guide_folder, reuse=damaged)


@pytest.mark.parametrize("roles", [False, True])
def test_rows_of_texts_are_those_of_a_dictionary(roles):
    random = np.random.default_rng(3)
    texts = random.choice(random_texts(200, seed=4), size=300)
    names = random.choice(["query", "document"], size=300)
    hashes = pl.Series([hash_text(text) for text in texts], dtype=pl.Binary)
    frame = pl.DataFrame({"role": names, "text_hash": hashes})
    keys = list(zip(names, texts, strict=True)) if roles else list(texts)
    known, asked = frame[:200], frame[100:]
    first = {}
    for row, key in enumerate(keys[:200]):
        first.setdefault(key, row)
    rows = TextRows(known if roles else known.select("text_hash")).find(asked)
    assert rows.tolist() == [first.get(key, -1) for key in keys[100:]]
    assert (rows == -1).any()
    assert TextRows(known[:0]).find(asked).tolist() == [-1] * 200
