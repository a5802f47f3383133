"""The search files of an index: one FAISS file a slice of documents, built, tuned and measured each alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ...shared.guide_index.memory_map import MappedVectors
from ...shared.models.device import pick_device
from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord
from ..output.store import Store
from ..run.jobs import ShardResult
from . import faiss_index
from .exact import BLOCK_ROWS, exact_search
from .neighbors import DocumentShard


@dataclass(frozen=True)
class FaissJob:
    """The FAISS file of one slice of documents after the other, and how good it is.

    Attributes:
        place: Where the files go.
        vectors: All guide vectors.
        slices: First and last-plus-one text id of each slice.
        exact: A flat index; else inverted lists.
        sample: (n, dim) float32 anchors that the recall of inverted lists is measured with.
        neighbors: How many documents each of them looks for.
        seed: Of the inverted lists.
        kept: Files that are there already; they are only measured.
        device: As the settings have it; resolved where the work is done.
    """

    with_guide: ClassVar[bool] = False

    place: Store
    vectors: MappedVectors
    slices: list[DocumentShard]
    exact: bool
    sample: np.ndarray
    neighbors: int
    seed: int
    kept: dict[int, FileRecord]
    device: str

    def compute(self, number: int, advance: Advance) -> tuple[faiss_index.faiss.Index | None, dict[str, Any]]:
        """The index of a slice and what it is like."""
        documents = self.slices[number]
        advance(documents.stop - documents.start)
        if self.exact and number in self.kept:
            return None, {"kind": "Flat"}
        if number in self.kept:
            self.place.fetched(self.kept[number])
            index = faiss_index.read(self.place.root, self.kept[number])
        else:
            index = faiss_index.build(self.vectors, documents.start, documents.stop, exact=self.exact, seed=self.seed)
        if not isinstance(index, faiss_index.faiss.IndexIVF):
            return index, faiss_index.describe(index)
        blocks = partial(self.vectors.blocks, documents.start, documents.stop, BLOCK_ROWS)
        truth = exact_search(self.sample, blocks, self.neighbors, device=pick_device(self.device)).ids
        if number not in self.kept:
            faiss_index.tune(index, self.sample, truth)
        return index, {**faiss_index.describe(index), "recall": faiss_index.recall(index, self.sample, truth)}

    def commit(self, number: int, value: tuple[faiss_index.faiss.Index | None, dict[str, Any]]) -> ShardResult:
        """Write it, unless it is there."""
        index, told = value
        documents = self.slices[number]
        path, rows = self.place.layout.shard("faiss", number), documents.stop - documents.start
        if number in self.kept or index is None:
            return ShardResult(number, self.kept[number], told)
        return ShardResult(number, self.place.commit(path, rows, lambda to: faiss_index.write(index, to)), told)
