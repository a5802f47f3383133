"""What the trainer and the report read of each pair: scores, neighbours, positive rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from ...shared.guide_index.layout import SCORES
from ...shared.guide_index.ragged import as_lists
from ...shared.models.device import pick_device
from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord
from ..output.store import Store
from ..run.jobs import ShardResult
from . import faiss_index
from .guide_vectors import GuideVectors
from .neighbors import (
    AnchorsOfPart,
    DocumentShard,
    PartFound,
    Search,
    approximate_search_in,
    dots,
    exact_search_in,
    found_in_slice,
)


@dataclass(frozen=True)
class ScoreJob:
    """The search of one slice of documents for one part of pairs after the other; after the last slice, their scores.

    Attributes:
        place: Where the parts go.
        space: The guide vectors.
        pairs: The parts of pairs.
        documents: The slice to search.
        faiss: Its FAISS file; None searches exactly.
        before: What the slices before gave, by part; empty for the first.
        last: Whether no slice follows.
        neighbors: How many documents to find an anchor.
        device: As the settings have it; resolved where the work is done.
    """

    with_guide: ClassVar[bool] = False

    place: Store
    space: GuideVectors
    pairs: list[FileRecord]
    documents: DocumentShard
    faiss: FileRecord | None
    before: dict[int, FileRecord]
    last: bool
    neighbors: int
    device: str

    def compute(self, number: int, advance: Advance) -> pa.Table | PartFound:
        """The finished scores of a part, or what has been found so far."""
        pairs = self.place.frame(self.pairs[number], "pairs")
        part = AnchorsOfPart.of(self.space, pairs)
        found = found_in_slice(
            self.space,
            part,
            self.documents,
            self._search,
            self.neighbors,
            exact=self.faiss is None,
            device=pick_device(self.device),
        )
        if number in self.before:
            found = PartFound.read(self.place.fetched(self.before[number])).merged(found)
        advance(pairs.height)
        return score_table(self.space, pairs, part, found) if self.last else found

    def commit(self, number: int, value: pa.Table | PartFound) -> ShardResult:
        """Write it: a part of the index, or a file that the next slice takes up."""
        if isinstance(value, pa.Table):
            return ShardResult(number, self.place.commit_shard("scores", number, value))
        path = found_file(self.place, self.documents.number, number)
        return ShardResult(number, self.place.commit(path, len(value.above), value.write))

    @cached_property
    def _search(self) -> Search:
        """The slice's search; its FAISS file is read once a worker."""
        if self.faiss is None:
            return exact_search_in(self.space, self.documents, pick_device(self.device))
        self.place.fetched(self.faiss)
        index = faiss_index.read(self.place.root, self.faiss)
        searched = faiss_index.on_gpu(index) if pick_device(self.device).startswith("cuda") else index
        return approximate_search_in(self.space.vectors, searched)


def found_file(place: Store, slice_number: int, part: int) -> Path:
    """Where a part keeps what has been found up to a slice."""
    return found_folder(place, slice_number) / f"part-{part:05d}.npz"


def found_folder(place: Store, slice_number: int) -> Path:
    """The folder of such files."""
    return place.layout.building / f"found-{slice_number:05d}"


def score_table(space: GuideVectors, pairs: pl.DataFrame, part: AnchorsOfPart, found: PartFound) -> pa.Table:
    """The scores of one part of pairs, see ``schema.SCORES``.

    ``positive_rank`` counts the documents above the positive, the anchor's own text left out: all of them where the
    search is exact, those among the neighbours found where it is not.
    """
    negatives = pairs["negative_ids"]
    repeats = negatives.list.len().to_numpy()
    negative_ids = negatives.explode(empty_as_null=False).to_numpy()
    anchors = np.repeat(part.vectors[part.row_of_pair], repeats, axis=0)
    scores, ids = found.scores[part.row_of_pair], found.ids[part.row_of_pair]
    held = ids >= 0
    return pa.table(
        {
            "pair_id": pairs["pair_id"].to_numpy(),
            "positive_score": part.positive_scores,
            "negative_scores": as_lists(dots(anchors, space.vectors.take(negative_ids)), repeats),
            "neighbor_ids": as_lists(ids[held], held.sum(axis=1)),
            "neighbor_scores": as_lists(scores[held], held.sum(axis=1)),
            "positive_rank": found.above,
        }
    ).cast(SCORES)
