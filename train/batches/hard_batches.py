"""Hard batches: pairs whose texts the guide finds close stand in one batch, and the judge takes out the false ones.

Batches are cut from short walks over the neighbour lists: a random pair, the pairs whose positives are closest to its
anchor, then theirs. The length of a walk is the hardness: 0 leaves every pair alone, as in a random batch; one less
than the batch size makes a batch one neighbourhood.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded, runs

WIDTH = 20  # neighbours that a walk can go on to from one pair


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
    for of_row, content in stored_neighbors(index, labels):
        found = np.minimum(np.searchsorted(documents, content), len(documents) - 1)
        other = first[found]
        held = (documents[found] == content) & (anchors[other] != anchors[of_row, None])
        held &= content != positives[of_row, None]
        kept = np.argsort(~held, axis=1, kind="stable")[:, :WIDTH]
        rows[of_row, : kept.shape[1]] = np.take_along_axis(np.where(held, other, -1), kept, axis=1)
    return Nearby(rows, hardness)


def stored_neighbors(index: GuideIndex, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
        for other in steps[pair].tolist():
            if len(walk) == length:
                return walk
            if other >= 0 and unused[other]:
                unused[other] = False
                walk.append(other)
    return walk
