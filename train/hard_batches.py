"""Hard batches: pairs whose texts the guide finds close stand in one batch, and the judge takes out the false ones.

Batches are cut from short walks over the neighbour lists: a random pair, the pairs whose positives are closest to its
anchor, then theirs. The length of a walk is the hardness: 0 leaves every pair alone, as in a random batch; one less
than the batch size makes a batch one neighbourhood. Pairs that are dealt in blocks come to them in clusters, for a walk
does not leave its block.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..shared.index import GuideIndex
from ..shared.ragged import padded, runs

WIDTH = 20  # neighbours that a walk can go on to from one pair
SIZES, STRIDE = 2**20, 2**20
HALF = np.uint64(32)  # bits of a random number


class Nearby(NamedTuple):
    """Where a walk can go.

    Attributes:
        rows: (pairs, W) int32 rows of the pairs that stand closest to each pair, closest first; -1 for none.
        hardness: How many pairs a pair brings along.
    """

    rows: np.ndarray
    hardness: int


def nearby_pairs(index: GuideIndex, labels: np.ndarray, hardness: int) -> Nearby:
    """For each pair, other pairs of ``labels`` whose positive is a stored neighbour of its anchor.

    Args:
        index: An open index.
        labels: (n,) pair ids, all different.
        hardness: Kept with what is found.
    """
    ids = index.pairs(labels, 0)
    positives, anchors = index.content_ids(ids.positives), index.content_ids(ids.anchors)
    documents, first = np.unique(positives, return_index=True)
    rows = np.full((len(labels), WIDTH), -1, dtype=np.int32)
    for of_row, content in _stored_neighbors(index, labels):
        found = np.minimum(np.searchsorted(documents, content), len(documents) - 1)
        other = first[found]
        held = (documents[found] == content) & (anchors[other] != anchors[of_row, None])
        held &= content != positives[of_row, None]
        kept = np.argsort(~held, axis=1, kind="stable")[:, :WIDTH]
        rows[of_row, : kept.shape[1]] = np.take_along_axis(np.where(held, other, -1), kept, axis=1)
    return Nearby(rows, hardness)


def blocks_of(clusters: np.ndarray, blocks: int, most: int, seed: int, epoch: int) -> np.ndarray:
    """Which block each pair is dealt in: those of a cluster in the same one, clusters at random.

    Args:
        clusters: (n,) uint32, see ``clusters_of``.
        blocks: How many there are, up to 65,536.
        most: Of about so many pairs a cluster stays whole; a larger one is cut at random, for a block of one cluster
            would be as one-sided as it is, and a text that all its pairs share cannot stand in one batch twice.
        seed: Of the whole run.
        epoch: Counted from 0.

    Returns:
        (n,) uint16.
    """
    random, found = np.random.default_rng([seed, epoch]), np.empty(len(clusters), dtype=np.uint16)
    sizes = np.zeros(SIZES, dtype=np.int64)  # of several clusters together, where there are more
    for start in range(0, len(clusters), STRIDE):
        sizes += np.bincount(clusters[start : start + STRIDE] % SIZES, minlength=SIZES)
    for start in range(0, len(clusters), STRIDE):
        here = clusters[start : start + STRIDE]
        piece = random.integers(0, 1 + (sizes[here % SIZES] - 1) // most)
        numbers = _random_numbers(here + (piece.astype(np.uint64) << HALF), seed, epoch)
        found[start : start + STRIDE] = (numbers >> HALF) * np.uint64(blocks) >> HALF
    return found


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
    for rows, content in _stored_neighbors(index, labels):
        positives = index.content_ids(index.pairs(labels[rows], 0).positives)
        documents = np.column_stack([positives, np.where(content < 0, positives[:, None], content)])
        found[rows] = (_random_numbers(documents, seed, epoch) >> HALF).min(axis=1)
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


def _stored_neighbors(index: GuideIndex, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shard by shard, rows of ``labels`` and content ids of their stored neighbours, closest first, -1 for none."""
    order, width = np.argsort(labels), int(index.manifest.request.settings["neighbors"])
    ordered = labels[order]
    for table in index.scores(["pair_id", "neighbor_ids"]):
        pairs = table["pair_id"].to_numpy()
        here = slice(*np.searchsorted(ordered, [pairs[0], pairs[-1] + 1]))
        places = np.searchsorted(pairs, ordered[here])
        yield order[here], index.content_ids(padded(table["neighbor_ids"].take(places), width, -1, np.int64))


def in_walks(pairs: np.ndarray, nearby: Nearby, random: np.random.Generator) -> np.ndarray:
    """The pairs in an order in which walks of ``1 + hardness`` pairs stand together.

    Args:
        pairs: (n,) rows.
        nearby: Where to go from each.
        random: Chooses where walks begin, and their order.
    """
    unused = bytearray(len(nearby.rows))
    for pair in pairs.tolist():
        unused[pair] = True
    walked, ends = array("q"), array("q")
    for start in random.permutation(pairs):
        if unused[start]:
            walked.extend(_walk(int(start), nearby.rows, unused, 1 + nearby.hardness))
            ends.append(len(walked))
    order, counts = np.asarray(walked), np.diff(np.asarray(ends), prepend=0)
    walks = random.permutation(len(counts))
    return order[runs(np.asarray(ends)[walks] - counts[walks], counts[walks], len(order))[0]]


def _walk(start: int, steps: np.ndarray, unused: bytearray, length: int) -> list[int]:
    """Up to ``length`` unused pairs, breadth first from one; they are used then."""
    walk = [start]
    unused[start] = False
    for pair in walk:
        if len(walk) == length:
            break
        for other in steps[pair].tolist():
            if len(walk) == length:
                return walk
            if other >= 0 and unused[other]:
                unused[other] = False
                walk.append(other)
    return walk
