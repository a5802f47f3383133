"""Smaller vectors from end to end: what is stored, what the sample keeps, what `verify` says, what a trainer reads."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from gistcache.precompute.embed import unrounded
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.shared.cli import verify
from gistcache.shared.guide_index import manifest
from gistcache.shared.guide_index.decisions import changed_decisions
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.layout import Layout
from gistcache.shared.guide_index.quantize import quantize
from gistcache.shared.models.load import load_model
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss

from tests.conftest import build_test_index, random_pairs
from tests.precompute.test_build import columns_of
from tests.test_security import resealed

ROWS = [row | {"task": "ab"[number % 2]} for number, row in enumerate(random_pairs(90, seed=70, negatives=1))]
ROWS += [{"anchor": ROWS[2]["positive"], "positive": ROWS[3]["anchor"], "negative_1": "red dog", "task": "a"}]


@pytest.fixture(scope="module", params=["float16", "int8"])
def index(request, tmp_path_factory, guide_folder) -> GuideIndex:
    folder = tmp_path_factory.mktemp("smaller") / "index"
    return GuideIndex.open(build_test_index(folder, ROWS, guide_folder, vector_dtype=request.param, shard_rows=40))


def test_vectors_are_stored_small_and_read_as_unit_vectors(index, guide_folder):
    texts, scores = columns_of(index)
    ids = np.arange(len(texts))
    assert index.stored_vectors.take(ids).dtype == np.dtype(index.vector_dtype)
    vectors = index.vectors(ids)
    assert np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1).max() < 1e-3
    assert np.abs(vectors - load_model(guide_folder).encode(texts, normalize_embeddings=True)).max() < 4e-3
    pairs = index.pairs(np.arange(len(index)))
    anchors, positives = (index.vectors(each).astype(np.float32) for each in (pairs.anchors, pairs.positives))
    assert np.allclose(scores["positive_score"], (anchors * positives).sum(axis=1), atol=1e-6)


def test_the_sample_has_the_guides_own_vectors_and_the_stored_ones_are_those_rounded(index, guide_folder):
    texts, _ = columns_of(index)
    records = index.unrounded()
    assert len(records) == len(index) == 91
    pairs = index.pairs(records["pair"], 0)
    guide = load_model(guide_folder)
    for ids, side in ((pairs.anchors, records["anchor"]), (pairs.positives, records["positive"])):
        assert np.abs(side - guide.encode([texts[each] for each in ids], normalize_embeddings=True)).max() < 1e-6
        assert np.array_equal(index.stored_vectors.take(ids), quantize(side, index.vector_dtype))


def test_decisions_that_differ_are_those_of_a_loop(index):
    records = index.unrounded()
    pairs, tasks = index.pairs(records["pair"], 0), index.tasks(records["pair"])
    content = [index.content_ids(each) for each in (pairs.anchors, pairs.positives)]
    stored = [index.vectors(each).astype(np.float32) for each in (pairs.anchors, pairs.positives)]
    counted = differing = 0
    for i in range(len(records)):
        for j in range(len(records)):
            if tasks[i] != tasks[j] or {content[0][i], content[1][i]} & {content[0][j], content[1][j]}:
                continue
            for left, right in ((0, 1), (0, 0), (1, 1)):
                said = [
                    sides[left][i] @ sides[right][j] > sides[0][i] @ sides[1][i]
                    for sides in ((records["anchor"], records["positive"]), stored)
                ]
                counted, differing = counted + 1, differing + (said[0] != said[1])
    told = changed_decisions(index)
    assert told.cells == counted
    assert told.pairs == 91
    assert next(iter(told.shares.values())) == pytest.approx(differing / counted, abs=2 / counted)
    assert [name.split()[0] for name in told.shares] == sorted(("float16", "int8"), key=index.vector_dtype.__ne__)


def test_verify_tells_the_share(index):
    said = "\n".join(map(str, verify.verify(str(index.layout.root)).text))
    found = re.search(rf"differ from float32: {index.vector_dtype} as stored (\S+) %, \w+ instead (\S+) %", said)
    assert found, said
    assert all(0 <= float(share) < 1 for share in found.groups())


def test_verify_finds_values_that_cannot_be(index, tmp_path):
    copy = tmp_path / "index"
    shutil.copytree(index.layout.root, copy)
    rows, records = np.load(copy / "vectors" / "shard-00000.npy"), index.unrounded()
    rows[3], records["pair"][0], records["anchor"][1, 0] = 0, 91, np.nan
    for name, array in (("vectors/shard-00000.npy", rows), ("unrounded/shard-00000.npy", records)):
        np.save(tmp_path / "wrong.npy", array)
        resealed(copy, name, (tmp_path / "wrong.npy").read_bytes())
    faults = "\n".join(verify.find_faults(Layout(copy), GuideIndex.open(copy).manifest))
    assert "vectors/shard-00000.npy: 1 vectors of another length than one, first row 3" in faults
    assert "unrounded/shard-00000.npy: values that are not finite" in faults
    assert "unrounded/shard-00000.npy: 1 values are no pair id (0 to 90)" in faults


def test_a_text_of_the_sample_goes_through_the_guide_once(tmp_path, guide_folder, monkeypatch):
    for room in (unrounded, manifest):
        monkeypatch.setattr(room, "UNROUNDED_PAIRS", 7)
    calls, original = [], ModelGuide.encode
    monkeypatch.setattr(
        ModelGuide, "encode", lambda self, texts, *rest: calls.extend(texts) or original(self, texts, *rest)
    )
    index = GuideIndex.open(build_test_index(tmp_path / "index", ROWS, guide_folder))
    assert sorted(calls) == sorted({row[name] for row in ROWS for name in ("anchor", "positive", "negative_1")})
    assert len(index.unrounded()) == 7


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
