"""The calculator against indexes that were really built."""

from __future__ import annotations

import pytest
from gistcache.shared.index import GuideIndex
from gistcache.shared.plan_command import PlanSettings, planned, told
from gistcache.shared.scaling import Corpus, Shape, file_bytes, parts

from tests.conftest import build_test_index, random_pairs

# Bytes of the indexes that tests/bench/scale.py builds: 384 dimensions, half of the texts anchors, 88 bytes a text.
MEASURED = {
    10_000: {"texts": 489_926, "pairs": 46_104, "vectors": 7_684_352, "scores": 1_797_334, "faiss": 7_724_186},
    100_000: {"texts": 5_176_046, "pairs": 409_613, "vectors": 76_805_888, "scores": 18_384_161, "faiss": 77_204_186},
    1_000_000: {
        "texts": 65_799_853,
        "pairs": 4_042_342,
        "vectors": 768_019_968,
        "scores": 223_252_796,
        "faiss": 392_370_712,
    },
}


@pytest.mark.parametrize("texts", MEASURED)
def test_sizes_are_those_measured_from_ten_thousand_to_a_million_texts(texts):
    corpus = Corpus(texts, pairs=texts // 2, documents=texts // 2, text_bytes=88, text_tokens=20)
    sizes = file_bytes(corpus, Shape(dim=384))
    for kind, measured in MEASURED[texts].items():
        near = 0.02 if kind in ("vectors", "faiss") else 0.4
        assert sizes[kind] == pytest.approx(measured, rel=near), kind
    assert sum(sizes.values()) == pytest.approx(sum(MEASURED[texts].values()), rel=0.05)


def test_raw_arrays_and_part_counts_are_exact(tmp_path, guide_folder):
    index = GuideIndex.open(
        build_test_index(tmp_path / "index", random_pairs(100, seed=90), guide_folder, part_rows=32)
    )
    held = index.manifest.request.corpus
    corpus = Corpus(held["queries"] + held["documents"], held["pairs"], held["documents"], 30, 10)
    shape = Shape(index.dim, part_rows=32)
    sizes = file_bytes(corpus, shape)
    heads = 128 * len(index.manifest.parts["vectors"])
    assert sum(record.bytes for record in index.manifest.parts["vectors"]) == sizes["vectors"] + heads
    assert sum(record.bytes for record in index.manifest.parts["scales"]) == sizes["scales"] + heads
    written = sum(len(records) for records in index.manifest.parts.values())
    heads = 256 * len(index.manifest.parts["lookup"])
    assert sum(record.bytes for record in index.manifest.parts["lookup"]) == sizes["lookup"] + heads
    assert parts(corpus, shape) <= written <= parts(corpus, shape) + 4  # a part never holds two roles


def test_a_billion_texts_fit_the_arithmetic():
    figures = planned(PlanSettings(texts=1e9, dim=1024))
    assert figures["index: vectors"] == 2 * 1024 * 1e9
    assert figures["stage 1: guide, device hours"] == pytest.approx(2 * 303e6 * 50e9 / 100e12 / 3600)
    assert told(2.048e12) == "2.0 TB"
    assert told(999) == "999 bytes"
