"""Which block of an epoch each pair is dealt in, for hard batches: a walk over neighbours does not leave its block.

Pairs with much the same neighbours come into one cluster, and clusters come to blocks at random.
"""

from __future__ import annotations

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from .hard_batches import stored_neighbors

STRIDE = 2**20  # pairs that are looked at together
COUNTERS = 2**20  # of pairs, each for the clusters with the same remainder
HALF = np.uint64(32)  # bits of a random number


def clusters_of(index: GuideIndex, labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """A number for each pair, the same for pairs of one cluster: those with much the same neighbours.

    Of random numbers, one a document, a pair has the least over its positive and its anchor's stored neighbours: two
    pairs come into one cluster as often as their documents overlap (MinHash, Broder 1997).

    Args:
        index: An open index.
        labels: (n,) pair ids, all different.
        seed: Of the whole run.
        epoch: Counted from 0; each has its own clusters.

    Returns:
        (n,) uint32.
    """
    found = np.empty(len(labels), dtype=np.uint32)
    for rows, content in stored_neighbors(index, labels):
        positives = index.content_ids(index.pairs(labels[rows], 0).positives)
        documents = np.column_stack([positives, np.where(content < 0, positives[:, None], content)])
        found[rows] = (_random_numbers(documents, seed, epoch) >> HALF).min(axis=1)
    return found


def blocks_of(clusters: np.ndarray, blocks: int, most: int, seed: int, epoch: int) -> np.ndarray:
    """Which block each pair is dealt in: those of a cluster in the same one, clusters at random.

    Args:
        clusters: (n,) uint32, see ``clusters_of``.
        blocks: How many there are.
        most: Of about so many pairs a cluster stays whole; a larger one is cut at random, for a block of one cluster
            would be as one-sided as it is, and a text that all its pairs share cannot stand in one batch twice.
        seed: Of the whole run.
        epoch: Counted from 0.

    Returns:
        (n,) uint32.
    """
    random, found = np.random.default_rng([seed, epoch]), np.empty(len(clusters), dtype=np.uint32)
    sizes = np.zeros(COUNTERS, dtype=np.int64)
    for start in range(0, len(clusters), STRIDE):
        sizes += np.bincount(clusters[start : start + STRIDE] % COUNTERS, minlength=COUNTERS)
    for start in range(0, len(clusters), STRIDE):
        here = clusters[start : start + STRIDE]
        piece = random.integers(0, 1 + (sizes[here % COUNTERS] - 1) // most)
        numbers = _random_numbers(here + (piece.astype(np.uint64) << HALF), seed, epoch)
        found[start : start + STRIDE] = (numbers >> HALF) * np.uint64(blocks) >> HALF
    return found


def _random_numbers(ids: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """A uint64 for each number, the same for the same one, different ones for different ones.

    Shifts and odd factors, each of which can be undone; the factors are drawn from seed and epoch.
    """
    numbers = ids.astype(np.uint64)
    for factor in np.random.default_rng([seed, epoch]).integers(2**63, 2**64, 3, dtype=np.uint64) | np.uint64(1):
        numbers = (numbers + factor) * factor
        numbers ^= numbers >> HALF
    return numbers
