"""Stage 1 through its own entry: what is in the folder, interrupted and resumed, finished, stale, searched."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from gistcache.precompute import build as build_module
from gistcache.precompute.command import index as index_command
from gistcache.precompute.guides.batching import Passes
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import FolderLockedError, IndexFaultError, ModelError, SettingsError
from gistcache.shared.guide_index.faults import find_faults
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.layout import Layout
from gistcache.shared.models.load import load_model
from gistcache.shared.storage.journal import Journal
from gistcache.shared.storage.lock import folder_lock

from tests.conftest import build_test_index, random_pairs, random_texts, write_jsonl


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def columns_of(index: GuideIndex):
    """Texts by id, and the score shards as one dict of lists."""
    parts = [pq.read_table(path) for path in sorted((index.layout.root / "texts").glob("*.parquet"))]
    texts = [text for part in parts for text in part["text"].to_pylist()]
    scores = {}
    for table in index.scores():
        for name, values in table.to_pydict().items():
            scores.setdefault(name, []).extend(values)
    return texts, scores


def test_everything_in_the_folder_is_what_a_naive_computation_says(small_index, guide_folder):
    index = GuideIndex.open(small_index)
    texts, scores = columns_of(index)
    vectors = index.vectors(np.arange(len(texts)))
    model = load_model(guide_folder)
    expected = model.encode(texts, normalize_embeddings=True)
    assert vectors.dtype == np.float16
    assert np.abs(vectors - expected).max() < 1e-3

    vectors = vectors.astype(np.float32)
    queries = index.manifest.request.corpus["queries"]
    ids = index.pairs(np.arange(len(index)))
    similarity = vectors @ vectors.T
    for pair in range(len(index)):
        anchor, positive = ids.anchors[pair], ids.positives[pair]
        documents = [d for d in range(queries, len(texts)) if texts[d] != texts[anchor]]
        ranked = sorted(documents, key=lambda d: -similarity[anchor, d])
        assert scores["positive_score"][pair] == pytest.approx(similarity[anchor, positive], abs=1e-6)
        assert scores["negative_scores"][pair] == pytest.approx(similarity[anchor, ids.negatives[pair]], abs=1e-6)
        assert scores["neighbor_scores"][pair] == pytest.approx(similarity[anchor, ranked[:10]], abs=1e-6)
        above = sum(similarity[anchor, d] > similarity[anchor, positive] for d in documents if d != positive)
        assert abs(scores["positive_rank"][pair] - above) <= 1
    unique = {text: number for number, text in reversed(list(enumerate(texts)))}
    density = index.density(np.arange(len(texts)))
    for number in range(0, len(texts), 7):
        others = sorted((similarity[number, k] for text, k in unique.items() if text != texts[number]), reverse=True)
        assert density[number] == pytest.approx(others[99], abs=1e-6)


def test_a_text_of_both_roles_is_embedded_once_by_a_guide_without_prompts(tmp_path, guide_folder, monkeypatch):
    texts = random_texts(40, seed=11)
    rows = [{"anchor": texts[i], "positive": texts[(i + 1) % 40]} for i in range(40)]
    calls = []
    original = ModelGuide.encode
    monkeypatch.setattr(
        ModelGuide, "encode", lambda self, batch, *rest: calls.extend(batch) or original(self, batch, *rest)
    )
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder, shard_rows=16))
    assert sorted(calls) == sorted(texts)
    content = index.content_ids(np.arange(80))
    twins = np.flatnonzero(content != np.arange(80))
    assert len(twins) == 40
    assert np.array_equal(index.vectors(twins), index.vectors(content[twins]))


def test_prompts_make_two_vectors_of_one_text(tmp_path, prompted_guide_folder):
    texts = random_texts(6, seed=12)
    rows = [{"anchor": texts[i], "positive": texts[(i + 1) % 6]} for i in range(6)]
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, prompted_guide_folder))
    model = load_model(prompted_guide_folder)
    twin = int(np.flatnonzero(index.content_ids(np.arange(12)) == 0)[1])
    query, document = index.vectors(np.array([0, twin])).astype(np.float32)
    assert np.abs(query - model.encode("find: " + texts[0])).max() < 1e-3
    assert np.abs(document - model.encode("text: " + texts[0])).max() < 1e-3
    other = build_test_index(tmp_path / "other", rows, prompted_guide_folder, query_prompt="", document_prompt="")
    assert np.abs(GuideIndex.open(other).vectors(np.array([0]))[0] - model.encode(texts[0])).max() < 1e-3


@pytest.mark.parametrize("after", [1, 4, 9, 14])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, guide_folder, monkeypatch, after):
    rows = random_pairs(90, seed=5, negatives=1)
    settings = {"shard_rows": 40, "neighbors": 5, "vector_dtype": "int8" if after == 9 else "float16"}
    whole = build_test_index(tmp_path / "whole", rows, guide_folder, **settings)

    class PoweredOffError(BaseException):
        pass

    written = []
    original = Journal.record

    def record(self, part):
        if len(written) == after:
            raise PoweredOffError
        written.append(part.path)
        original(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", record)
        with pytest.raises(PoweredOffError):
            build_test_index(tmp_path / "cut", rows, guide_folder, **settings)
    with pytest.raises(IndexFaultError, match="not finished"):
        GuideIndex.open(tmp_path / "cut")
    made_before = {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in written}
    build_test_index(tmp_path / "cut", rows, guide_folder, **settings)
    assert contents(tmp_path / "cut") == contents(whole)
    for name, stamp in made_before.items():
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == stamp, f"{name} was written again"


def test_a_part_that_no_longer_matches_its_record_is_made_again(tmp_path, guide_folder, monkeypatch):
    rows = random_pairs(30, seed=7)
    whole = build_test_index(tmp_path / "whole", rows, guide_folder)
    with monkeypatch.context() as patch:
        patch.setattr(build_module.Manifest, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_test_index(tmp_path / "cut", rows, guide_folder)
    damaged = tmp_path / "cut" / "vectors" / "shard-00000.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    build_test_index(tmp_path / "cut", rows, guide_folder)
    assert contents(tmp_path / "cut") == contents(whole)


def test_approximate_search_says_how_good_it_is(tmp_path, guide_folder):
    rows = random_pairs(400, seed=10)
    exact = GuideIndex.open(build_test_index(tmp_path / "exact", rows, guide_folder, neighbors=10))
    approximate = GuideIndex.open(
        build_test_index(tmp_path / "approximate", rows, guide_folder, neighbors=10, exact_limit=100)
    )
    search = approximate.manifest.measured["search"]
    assert search["exact"] is False
    _, true_scores = columns_of(exact)
    _, scores = columns_of(approximate)
    found = [
        len(set(a) & set(b)) / 10 for a, b in zip(scores["neighbor_ids"], true_scores["neighbor_ids"], strict=True)
    ]
    assert np.mean(found) == pytest.approx(search["recall"], abs=0.02)
    assert np.mean(found) >= 0.95
    again = build_test_index(tmp_path / "again", rows, guide_folder, neighbors=10, exact_limit=100)
    assert contents(again) == contents(approximate.layout.root)


def test_a_second_writer_is_told_who_is_at_work(tmp_path, guide_folder):
    rows = random_pairs(10, seed=13)
    with folder_lock(Layout(tmp_path / "index").building), pytest.raises(FolderLockedError, match=str(os.getpid())):
        build_test_index(tmp_path / "index", rows, guide_folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path, guide_folder, monkeypatch):
    monkeypatch.setattr(build_module, "read_corpus", lambda *_: pytest.fail("pairs were read"))
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.tex").write_text("mine")
    with pytest.raises(IndexFaultError, match="not empty"):
        build_test_index(tmp_path / "index", random_pairs(10), guide_folder)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["thesis.tex"]
    with pytest.raises(ModelError, match="no model folder"):
        build_test_index(tmp_path / "other", random_pairs(10), guide_folder.parent / "misspelt")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda vectors: np.where(np.arange(len(vectors))[:, None] == len(vectors) - 1, np.nan, vectors), "non-finite"),
        (lambda vectors: np.where(np.arange(len(vectors))[:, None] == 0, np.inf, vectors), "non-finite"),
        (lambda vectors: vectors * (np.arange(len(vectors)) != 1)[:, None], "a zero vector"),
    ],
)
def test_a_guide_that_returns_no_vector_is_stopped_and_the_text_named(
    tmp_path, guide_folder, monkeypatch, spoil, message
):
    rows = random_pairs(10, seed=14)
    original = Passes.embed
    monkeypatch.setattr(Passes, "embed", lambda self, features: spoil(original(self, features)))
    with pytest.raises(ModelError, match=message) as caught:
        build_test_index(tmp_path / "index", rows, guide_folder)
    assert any(repr(row["anchor"])[:20] in str(caught.value) for row in rows)
    assert not list((tmp_path / "index" / "vectors").glob("*"))


def test_settings_out_of_range_are_refused_at_once():
    with pytest.raises(SettingsError, match="--neighbors"):
        IndexSettings(guide="x", neighbors=0)


def test_held_out_pairs_are_evaluated_while_the_guide_is_there(tmp_path, guide_folder):
    held_out = write_jsonl(tmp_path / "held.jsonl", random_pairs(20, seed=15))
    source = write_jsonl(tmp_path / "pairs.jsonl", random_pairs(20, seed=16))
    settings = IndexSettings(guide=str(guide_folder), out=tmp_path / "index", eval_pairs=(str(held_out),))
    outcome = index_command((str(source),), settings=settings)
    figures = outcome.data["measured"]["guide"]
    assert 0 < figures["ndcg@10"] <= 1
    told = dict(zip(*(column.cells for column in outcome.text[0].columns), strict=True))["guide on held-out pairs"]
    assert told == ", ".join(f"{name} {figures[name.lower()]:.3f}" for name in ("nDCG@10", "MRR@10", "recall@10"))
    without = index_command((str(source),), settings=replace(settings, out=tmp_path / "without", eval_pairs=()))
    assert "guide on held-out pairs" not in list(without.text[0].columns[0].cells)


@pytest.mark.parametrize(
    ("file", "damage", "fault"),
    [
        ("vectors/shard-00000.npy", lambda data: data[:-4], "bytes"),
        ("vectors/shard-00001.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        ("scores/shard-00002.parquet", lambda data: data[:100] + b"x" + data[101:], "checksum"),
        ("faiss/shard-00000.faiss", None, "missing"),
    ],
)
def test_verify_names_the_damaged_file(tmp_path, small_index, file, damage, fault):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(small_index, copy)
    layout = Layout(copy)
    manifest = GuideIndex.open(copy).manifest
    assert list(find_faults(layout, manifest)) == []
    if damage is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(damage((copy / file).read_bytes()))
    faults = list(find_faults(layout, manifest))
    assert len(faults) == 1
    assert faults[0].startswith(file)
    assert fault in faults[0]
    with pytest.raises(IndexFaultError, match=file.split("/")[1]):
        GuideIndex.open(copy, verify=True)
