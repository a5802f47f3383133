"""Hard batches: pairs whose texts the guide scores as close share a batch; the judge masks the false negatives.

Batches are cut from short walks over the neighbour lists: a random pair, the pairs whose positives are closest to its
anchor, then theirs. The hardness is how many pairs one pair brings along: 0 is a random batch, one less than the batch
size makes each batch one neighbourhood.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import padded, runs

MAX_NEIGHBORS = 20  # pairs that a walk can continue to from one pair


class Walks(NamedTuple):
    """Where walks can go, and how long they are.

    Attributes:
        neighbors: (pairs, W) int32 rows of the pairs closest to each pair, closest first; -1 for none.
        length: Pairs a walk.
    """

    neighbors: np.ndarray
    length: int

    def order(self, pairs: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Permute pairs (n,) so that the pairs of a walk stand together; walks go to no other pairs: (n,) int64."""
        unused = bytearray(len(self.neighbors))
        for pair in pairs.tolist():
            unused[pair] = True
        order, ends = array("q"), array("q")
        for start in random.permutation(pairs).tolist():
            if unused[start]:
                order.extend(self._walk(start, unused))
                ends.append(len(order))
        stops = np.asarray(ends)
        counts = np.diff(stops, prepend=0)
        shuffled = random.permutation(len(counts))
        return np.asarray(order)[runs((stops - counts)[shuffled], counts[shuffled], len(order))[0]]

    def _walk(self, start: int, unused: bytearray) -> list[int]:
        """Walk breadth first from one unused pair over unused pairs, and mark them as used."""
        walk = [start]
        unused[start] = False
        for pair in walk:
            for neighbor in self.neighbors[pair].tolist():
                if len(walk) == self.length:
                    return walk
                if neighbor >= 0 and unused[neighbor]:
                    unused[neighbor] = False
                    walk.append(neighbor)
        return walk


def neighbor_pairs(index: GuideIndex, labels: np.ndarray) -> np.ndarray:
    """Find for each of some pairs (n,), all different, the others whose positive is a stored neighbour of its anchor.

    Returns:
        (n, MAX_NEIGHBORS) int32 rows of ``labels``, closest first; -1 for none.
    """
    ids = index.pairs(labels, 0)
    positives, anchors = index.content_ids(ids.positives), index.content_ids(ids.anchors)
    documents, first_pair = np.unique(positives, return_index=True)
    neighbors = np.full((len(labels), MAX_NEIGHBORS), -1, dtype=np.int32)
    order, width = np.argsort(labels), int(index.manifest.request.settings["neighbors"])
    ordered = labels[order]
    for table in index.scores(["pair_id", "neighbor_ids"]):
        pairs = table["pair_id"].to_numpy()
        rows = order[slice(*np.searchsorted(ordered, [pairs[0], pairs[-1] + 1]))]
        stored = table["neighbor_ids"].take(np.searchsorted(pairs, labels[rows]))
        contents = index.content_ids(padded(stored, width, -1, np.int64))
        place = np.minimum(np.searchsorted(documents, contents), len(documents) - 1)
        other = first_pair[place]
        usable = (documents[place] == contents) & (contents != positives[rows, None])
        usable &= anchors[other] != anchors[rows, None]
        closest = np.argsort(~usable, axis=1, kind="stable")[:, :MAX_NEIGHBORS]
        neighbors[rows, : closest.shape[1]] = np.take_along_axis(np.where(usable, other, -1), closest, axis=1)
    return neighbors
