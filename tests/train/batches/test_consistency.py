"""Consistency filtering: pairs whose positive the guide ranks too low are listed and not trained on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.batches.consistency import DROPPED, consistent_pairs
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings

from tests.conftest import build_test_index, random_pairs


def ranks_of(index):
    """How many documents are closer to each anchor than its positive, counted one by one."""
    labels = np.arange(len(index))
    ids = index.pairs(labels, 0)
    texts = np.arange(index.manifest.rows["texts"])
    anchors = np.unique(ids.anchors)
    documents = np.setdiff1d(texts, anchors)
    vectors = index.vectors(texts).astype(np.float32)
    ranks = []
    for anchor, positive in zip(ids.anchors, ids.positives, strict=True):
        scores = vectors[documents] @ vectors[anchor]
        ranks.append(int((scores > vectors[positive] @ vectors[anchor] + 1e-6).sum()))
    return np.array(ranks)


def test_pairs_below_the_rank_are_dropped(tmp_path, small_index):
    index = GuideIndex.open(small_index)
    ranks = ranks_of(index)
    labels = consistent_pairs(index, 20, tmp_path)
    assert labels.tolist() == np.flatnonzero(ranks < 20).tolist()
    dropped = pl.read_parquet(tmp_path / DROPPED)
    assert dropped["pair_id"].to_list() == np.flatnonzero(ranks >= 20).tolist()
    assert dropped["positive_rank"].to_list() == ranks[ranks >= 20].tolist()
    row = index.to_dataset()[int(dropped["pair_id"][0])]
    assert (dropped["anchor"][0], dropped["positive"][0]) == (row["anchor"], row["positive"])
    assert len(consistent_pairs(index, None, tmp_path)) == len(index)
    assert consistent_pairs(index, 10_000, tmp_path / "all").tolist() == list(range(len(index)))
    assert pl.read_parquet(tmp_path / "all" / DROPPED).schema.names() == dropped.columns
    with pytest.raises(SettingsError):
        consistent_pairs(index, 0, tmp_path)


def test_ranks_that_the_index_does_not_know_are_refused(tmp_path, guide_folder):
    rows = random_pairs(80, seed=6)
    index = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder, exact_limit=10, neighbors=5))
    assert 0 < len(consistent_pairs(index, 5, tmp_path)) < len(index)
    with pytest.raises(SettingsError, match="its 5 neighbours"):
        consistent_pairs(index, 6, tmp_path)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_trains_on_consistent_pairs(tmp_path, small_index, student_folder, cached):
    index = GuideIndex.open(small_index)
    consistent = int((ranks_of(index) < 40).sum())
    assert 16 <= consistent < len(index)
    settings = TrainSettings(
        index=(small_index,),
        student=str(student_folder),
        out=tmp_path / "run",
        batch_size=8,
        keep_positive_rank=40,
        device="cpu",
        token_cache=cached,
    )
    metrics = train_student(settings)
    assert metrics["steps"] <= consistent // 8
    assert pl.read_parquet(tmp_path / "run" / DROPPED).height == len(index) - consistent
