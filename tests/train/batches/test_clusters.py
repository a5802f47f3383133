"""Clusters: as likely as documents overlap, whole up to a size; neighbours stay together in the blocks of a plan."""

from __future__ import annotations

import numpy as np
import pytest
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.batches.clusters import blocks_of, clusters_of
from gistcache.train.batches.hard_batches import nearby_pairs
from gistcache.train.batches.sampler import PlannedBatches, rows_of_block


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def documents_of(index, labels):
    """Of each pair, content ids of its positive and its anchor's stored neighbours, as a set."""
    rows = {row["pair_id"]: row["neighbor_ids"] for table in index.scores() for row in table.to_pylist()}
    positives = index.pairs(labels, 0).positives
    return [
        set(index.content_ids(np.array([one, *rows[label]])).tolist())
        for one, label in zip(positives.tolist(), labels.tolist(), strict=True)
    ]


def test_two_pairs_are_of_one_cluster_as_often_as_their_documents_overlap(index):
    labels = np.random.default_rng(0).permutation(len(index))[:100]
    documents = documents_of(index, labels)
    overlap = np.array([[len(a & b) / len(a | b) for b in documents] for a in documents])
    drawn = [clusters_of(index, labels, 7, epoch) for epoch in range(400)]
    together = np.mean([each[:, None] == each for each in drawn], axis=0)
    assert np.triu(overlap > 0.3, 1).sum() > 5
    assert np.abs(together - overlap).max() < 0.125  # five standard deviations of 400 draws at one half
    assert np.array_equal(drawn[399], clusters_of(index, labels, 7, 399))


def test_clusters_stay_whole_up_to_a_size_and_larger_ones_are_spread():
    random = np.random.default_rng(0)
    clusters = np.concatenate([np.repeat(random.integers(2**32, size=2_000, dtype=np.uint32), 5), np.full(10_000, 7)])
    clusters = random.permutation(clusters).astype(np.uint32)
    found = blocks_of(clusters, 8, 50, 1, 0)
    sizes = np.bincount(found, minlength=8)
    assert sizes.min() > 0.8 * 2_500
    of_large = np.bincount(found[clusters == 7], minlength=8)
    assert 0.6 * 1_250 < of_large.min() <= of_large.max() < 1.4 * 1_250
    small = [len(np.unique(found[clusters == each])) for each in np.unique(clusters) if each != 7]
    assert set(small) == {1}
    assert np.array_equal(found, blocks_of(clusters, 8, 50, 1, 0))
    assert not np.array_equal(found, blocks_of(clusters, 8, 50, 1, 1))


def test_blocks_of_hard_batches_keep_neighbours_together(index):
    near = nearby_pairs(index, np.arange(len(index)), 0).rows
    kept = {"clusters": 0, "random": 0}
    for epoch in range(20):
        clusters = clusters_of(index, np.arange(len(index)), 3, epoch)
        drawn = {"clusters": blocks_of(clusters, 6, 20, 3, epoch), "random": np.empty(len(index), dtype=np.uint16)}
        for block in range(6):
            drawn["random"][rows_of_block(len(index), block, 6, 3, epoch)] = block
        for name, blocks in drawn.items():
            kept[name] += int(((blocks[near] == blocks[:, None]) & (near >= 0)).sum())
    assert kept["clusters"] > 1.15 * kept["random"]
    sampler = PlannedBatches.of(index, block=40, hardness=3)(index.to_dataset(0), 4, seed=3)
    block_of = blocks_of(clusters_of(index, np.arange(len(index)), 3, 0), 3, 5, 3, 0)
    batches = block_of[np.array(list(sampler))]
    assert (batches == batches[:, :1]).all()  # dealt block by block
    assert len(np.unique(batches[:, 0])) == 3
