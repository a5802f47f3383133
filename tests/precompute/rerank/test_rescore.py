"""A reranker's scores of an index against the library's own predictions; reused, finished, refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from gistcache.precompute.rerank import rescore as rescore_module
from gistcache.precompute.rerank.rescore import rescore_index
from gistcache.precompute.rerank.settings import RescoreSettings
from gistcache.shared.errors import IndexFaultError, ModelError, SettingsError, StaleIndexError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.reranker_scores import RerankerScores
from gistcache.shared.guide_index.texts import Texts
from sentence_transformers import CrossEncoder

from tests.conftest import build_test_index, make_reranker, random_pairs


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def settings_of(reranker, out, **more):
    return RescoreSettings(reranker=str(reranker), out=out, device="cpu", shard_rows=32, **more)


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_scores_are_those_of_the_library_one_pair_at_a_time(tmp_path, index, reranker_folder):
    folder = rescore_index(index, settings_of(reranker_folder, tmp_path / "out"))
    assert [record.rows for record in folder.shards] == [32, 18, 32, 18, 20]
    rows = [row for table in folder.tables() for row in table.to_pylist()]
    stored = [row for table in index.scores() for row in table.to_pylist()]
    assert [row["pair_id"] for row in rows] == list(range(120))
    texts, model = Texts(index), CrossEncoder(str(reranker_folder), device="cpu")
    for label in range(0, 120, 7):
        ids = index.pairs(np.array([label]))
        anchor = texts.take(ids.anchors)[0].as_py()
        documents = [*ids.positives, *ids.negatives[0], *stored[label]["neighbor_ids"]]
        expected = [float(model.predict([(anchor, each)])[0]) for each in texts.take(np.array(documents)).to_pylist()]
        row = rows[label]
        found = [row["positive_score"], *row["negative_scores"], *row["neighbor_scores"]]
        assert found == pytest.approx(expected, abs=1e-5)
    assert np.std([row["positive_score"] for row in rows]) > 0.01


def test_killed_and_finished_ends_in_the_same_bytes(tmp_path, index, reranker_folder, monkeypatch):
    whole = settings_of(reranker_folder, tmp_path / "whole")
    rescore_index(index, whole)
    calls = []
    real = rescore_module.rescored_table

    def dying(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(rescore_module, "rescored_table", dying)
    cut = settings_of(reranker_folder, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        rescore_index(index, cut)
    with pytest.raises(IndexFaultError, match="no finished scores"):
        RerankerScores.open(cut.out, index)
    with pytest.raises(StaleIndexError, match=r"settings.shard_rows: folder has 32, command asks for 50"):
        rescore_index(index, RescoreSettings(reranker=str(reranker_folder), out=cut.out, device="cpu", shard_rows=50))
    rescore_index(index, cut)
    assert len(calls) == 3 + 3  # two of five shards are reused
    assert bytes_of(cut.out) == bytes_of(whole.out)
    rescore_index(index, cut)
    assert len(calls) == 6


def test_scores_of_something_else_are_refused(tmp_path, index, reranker_folder, guide_folder):
    out = tmp_path / "out"
    rescore_index(index, settings_of(reranker_folder, out))
    other = GuideIndex.open(build_test_index(tmp_path / "other", random_pairs(20), guide_folder, neighbors=10))
    with pytest.raises(StaleIndexError) as error:
        RerankerScores.open(out, other)
    assert index.manifest.key in str(error.value)
    assert other.manifest.key in str(error.value)
    second = make_reranker(tmp_path / "second", seed=5)
    with pytest.raises(StaleIndexError, match=r"reranker.files.model.safetensors"):
        rescore_index(index, settings_of(second, out))
    with pytest.raises(StaleIndexError, match=r"reranker.max_length: .* asks for 16"):
        rescore_index(index, settings_of(reranker_folder, out, max_length=16))
    moved = shutil.copytree(reranker_folder, tmp_path / "moved")
    assert rescore_index(index, settings_of(moved, out)).request == RerankerScores.open(out, index).request
    part = next(out.glob("rescored/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(IndexFaultError, match="damaged"):
        RerankerScores.open(out, index)


def test_folders_and_models_of_another_kind_are_refused(tmp_path, index, small_index, reranker_folder, guide_folder):
    with pytest.raises(IndexFaultError, match="no scores of format version 1"):
        rescore_index(index, settings_of(reranker_folder, small_index))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(IndexFaultError, match="not empty"):
        rescore_index(index, settings_of(reranker_folder, tmp_path / "mine"))
    two = make_reranker(tmp_path / "two", labels=2)
    with pytest.raises(ModelError, match="2 scores"):
        rescore_index(index, settings_of(two, tmp_path / "out"))
    (two / "model.safetensors").rename(two / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        rescore_index(index, settings_of(two, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="out of range"):
        settings_of(reranker_folder, tmp_path / "out", batch_size=0)


def test_a_model_without_a_trained_scoring_head_is_refused(tmp_path, index, reranker_folder, guide_folder):
    plain = shutil.copytree(guide_folder.parent / "base", tmp_path / "plain")  # transformers' own format
    for folder in (guide_folder, plain):
        with pytest.raises(ModelError, match="no trained scoring head") as error:
            rescore_index(index, settings_of(folder, tmp_path / "out"))
        assert str(folder) in str(error.value)
    assert not (tmp_path / "out").exists()
    base = reranker_folder.parent / "base"  # no modules.json: as rerankers of transformers are
    assert (reranker_folder / "modules.json").is_file() != (base / "modules.json").is_file()
    assert rescore_index(index, settings_of(base, tmp_path / "base")).root.is_dir()
