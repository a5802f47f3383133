"""Vectors stored small, from end to end: what is stored, what rounding changes, what `verify` and a trainer read."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from gistcache.precompute.corpus import read_corpus
from gistcache.precompute.embed import rounding
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.shared.cli.verify import verify
from gistcache.shared.data.pairs import Pair
from gistcache.shared.guide_index.faults import find_faults
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.layout import Layout
from gistcache.shared.guide_index.quantize import quantize
from gistcache.shared.models.load import load_model
from gistcache.shared.storage.journal import Journal
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss

from tests.conftest import build_test_index, random_pairs
from tests.precompute.test_build import columns_of
from tests.test_security import put_file

ROWS = [row | {"task": "ab"[number % 2]} for number, row in enumerate(random_pairs(90, seed=70, negatives=1))]
ROWS += [{"anchor": ROWS[2]["positive"], "positive": ROWS[3]["anchor"], "negative_1": "red dog", "task": "a"}]


@pytest.fixture(scope="module", params=["float16", "int8"])
def index(request, tmp_path_factory, guide_folder) -> GuideIndex:
    folder = tmp_path_factory.mktemp("smaller") / "index"
    return GuideIndex.open(build_test_index(folder, ROWS, guide_folder, vector_dtype=request.param, shard_rows=40))


def test_vectors_are_stored_small_and_read_as_unit_vectors(index, guide_folder):
    texts, scores = columns_of(index)
    ids = np.arange(len(texts))
    dtype = index.manifest.request.settings["vector_dtype"]
    assert np.load(index.layout.file(index.manifest.shards["vectors"][0])).dtype == np.dtype(dtype)
    vectors = index.vectors(ids)
    assert np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1).max() < 1e-3
    assert np.abs(vectors - load_model(guide_folder).encode(texts, normalize_embeddings=True)).max() < 4e-3
    pairs = index.pairs(np.arange(len(index)))
    anchors, positives = (index.vectors(each).astype(np.float32) for each in (pairs.anchors, pairs.positives))
    assert np.allclose(scores["positive_score"], (anchors * positives).sum(axis=1), atol=1e-6)


def test_changed_decisions_are_those_of_a_loop(index, guide_folder):
    """All pairs are in the sample; exact vectors come from sentence-transformers, so that ties may fall otherwise."""
    texts, _ = columns_of(index)
    exact = load_model(guide_folder).encode(texts, normalize_embeddings=True)
    stored = index.vectors(np.arange(len(texts))).astype(np.float32)
    ids, tasks = index.pairs(np.arange(len(index)), 0), index.tasks(np.arange(len(index)))
    candidates = changed = 0
    for i in range(len(index)):
        for j in range(len(index)):
            own, other = ((ids.anchors[k], ids.positives[k]) for k in (i, j))
            if tasks[i] != tasks[j] or {texts[k] for k in own} & {texts[k] for k in other}:
                continue
            for left, right in ((own[0], other[1]), (own[0], other[0]), (own[1], other[1])):
                above = [v[left] @ v[right] > v[own[0]] @ v[own[1]] for v in (exact, stored)]
                candidates, changed = candidates + 1, changed + (above[0] != above[1])
    figure = index.manifest.measured["rounding"]
    assert figure["pairs"] == 91
    assert figure["candidates"] == candidates
    assert abs(figure["changed"] - changed) <= 2
    assert changed > 0 or index.manifest.request.settings["vector_dtype"] == "float16"


def test_decisions_are_counted_exactly(monkeypatch):
    """The same, by a loop over the sample's own vectors, which are coarse: many decisions change."""
    monkeypatch.setattr(rounding, "SAMPLE_PAIRS", 30)
    corpus = read_corpus(Pair(row["anchor"], row["positive"], (), row["task"]) for row in ROWS)
    sample = rounding.SampledPairs.draw(corpus, roles_alike=True)
    hashes = sorted(corpus.texts["text_hash"][: corpus.queries])
    assert sorted(corpus.texts["text_hash"][sample.contents[:, 0].tolist()]) == hashes[:30]
    random = np.random.default_rng(0)
    exact = random.normal(size=(30, 2, 4)).astype(np.float32)
    exact /= np.linalg.norm(exact, axis=2, keepdims=True)
    stored = quantize(np.round(exact, 1).reshape(60, 4), "float16").reshape(exact.shape)
    candidates = changed = 0
    for i in range(30):
        for j in range(30):
            if sample.tasks[i] != sample.tasks[j] or set(sample.contents[i]) & set(sample.contents[j]):
                continue
            for left, right in ((0, 1), (0, 0), (1, 1)):
                above = [v[i, left] @ v[j, right] > v[i, 0] @ v[i, 1] for v in (exact, stored.astype(np.float32))]
                candidates, changed = candidates + 1, changed + (above[0] != above[1])
    assert changed > 10
    assert rounding.changed_decisions(sample, exact, stored) == {
        "pairs": 30, "candidates": candidates, "changed": pytest.approx(changed, abs=1)
    }  # fmt: skip


def test_a_resumed_build_measures_what_an_uninterrupted_one_does(tmp_path, guide_folder, monkeypatch):
    expected = GuideIndex.open(build_test_index(tmp_path / "whole", ROWS, guide_folder, shard_rows=40))
    written, original = [], Journal.record

    def record(self, file):
        if file.path.startswith("density/"):
            raise KeyboardInterrupt
        written.append(file.path)
        original(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", record)
        with pytest.raises(KeyboardInterrupt):
            build_test_index(tmp_path / "cut", ROWS, guide_folder, shard_rows=40)
    assert any(path.startswith("vectors/") for path in written)
    index = GuideIndex.open(build_test_index(tmp_path / "cut", ROWS, guide_folder, shard_rows=40))
    assert index.manifest.measured["rounding"] == expected.manifest.measured["rounding"]


def test_verify_prints_the_share(index):
    text = "\n".join(map(str, verify(str(index.layout.root)).text))
    figure = index.manifest.measured["rounding"]
    share = re.search(r"rounding vectors to \w+: (\S+) %", text)
    assert share, text
    assert float(share[1]) == pytest.approx(100 * figure["changed"] / figure["candidates"], abs=1e-4)


def test_verify_finds_a_vector_of_length_zero(index, tmp_path):
    copy = tmp_path / "index"
    shutil.copytree(index.layout.root, copy)
    rows = np.load(copy / "vectors" / "shard-00000.npy")
    rows[3] = 0
    np.save(tmp_path / "wrong.npy", rows)
    put_file(copy, "vectors/shard-00000.npy", (tmp_path / "wrong.npy").read_bytes())
    faults = "\n".join(find_faults(Layout(copy), GuideIndex.open(copy).manifest))
    assert "vectors/shard-00000.npy: 1 vectors of another length than one, first row 3" in faults


def test_a_sampled_text_goes_through_the_guide_once(tmp_path, guide_folder, monkeypatch):
    monkeypatch.setattr(rounding, "SAMPLE_PAIRS", 7)
    calls, original = [], ModelGuide.encode
    monkeypatch.setattr(
        ModelGuide, "encode", lambda self, texts, *rest: calls.extend(texts) or original(self, texts, *rest)
    )
    index = GuideIndex.open(build_test_index(tmp_path / "index", ROWS, guide_folder))
    assert sorted(calls) == sorted({row[name] for row in ROWS for name in ("anchor", "positive", "negative_1")})
    assert index.manifest.measured["rounding"]["pairs"] == 7


def test_a_trainer_takes_an_int8_index_of_fewer_dimensions(tmp_path, guide_folder, student_folder):
    folder = build_test_index(tmp_path / "index", ROWS, guide_folder, vector_dtype="int8", dim=8)
    index, student = GuideIndex.open(folder), load_model(student_folder)
    assert index.vectors(np.arange(4)).shape == (4, 8)
    loss = GuidedContrastiveLoss(student, index, temperature=0.05, judge="neighborhood")
    rows = index.to_dataset()[:12]
    features = [student.preprocess(rows[name]) for name in ("anchor", "positive", "negative_1")]
    value = loss(features, torch.tensor(rows["label"]))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(each.grad).all() for each in student.parameters() if each.grad is not None)
