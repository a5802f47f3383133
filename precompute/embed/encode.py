"""Parts of text -> parts of guide vectors, each text through the guide once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from ...shared.guide_index.layout import CONTENT
from ...shared.guide_index.memory_map import MappedRows
from ...shared.guide_index.quantize import quantize
from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord
from ...shared.types import VectorDType
from ..guides.base import Guide
from ..output.store import Store
from ..run.jobs import ShardResult
from .reuse import Held, OldVectors

COMPUTED, KEPT = "computed", "kept from an earlier run"
SAME_AS_QUERY, FROM_OLD = "same text as an anchor", "taken from the older index"

# Of the texts asked for: their ids, and what they are.
VectorSource = Callable[[np.ndarray, pl.DataFrame], Held]


@dataclass(frozen=True)
class EncodeJob:
    """Guide vectors of one part of texts after the other.

    A guide that reads both roles alike embeds a text used in both once: the document's row is copied from the query's,
    whose part is written before.

    Attributes:
        place: Where the parts are and go.
        guide: The guide; a worker elsewhere loads its own.
        texts: The parts of texts; each holds one role.
        contents: Their content ids.
        queries: How many texts are queries.
        of_queries: The vectors of all queries; None while those are being made.
        old: Vectors that need not be computed again.
        dtype: How vectors are stored.
    """

    with_guide: ClassVar[bool] = True

    place: Store
    guide: Guide
    texts: list[FileRecord]
    contents: MappedRows
    queries: int
    of_queries: MappedRows | None
    old: OldVectors | None
    dtype: VectorDType

    def compute(self, number: int, advance: Advance) -> tuple[np.ndarray, Counter[str]]:
        """(rows, dim) of a part, as stored: what the sources hold, the rest computed; and how many came from where."""
        texts = self.place.frame(self.texts[number], "texts")
        vectors, counts = np.empty((texts.height, self.guide.dim), dtype=self.dtype), Counter[str]()
        missing = np.arange(texts.height)
        for name, source in self._sources().items():
            held, taken = source(texts["text_id"].to_numpy()[missing], texts[missing])
            vectors[missing[held]] = taken
            counts[name] += len(taken)
            advance(len(taken))
            missing = missing[~held]
        if missing.size:
            computed = self.guide.encode(texts["text"][missing].to_list(), texts["role"][0], advance)
            vectors[missing] = quantize(computed, self.dtype)
            counts[COMPUTED] += missing.size
        return vectors, counts

    def commit(self, number: int, value: tuple[np.ndarray, Counter[str]]) -> ShardResult:
        """Write it."""
        vectors, counts = value
        return ShardResult(number, self.place.commit_shard("vectors", number, vectors), counts)

    def _sources(self) -> dict[str, VectorSource]:
        sources: dict[str, VectorSource] = {}
        if self.of_queries is not None and self.guide.same_for_both_roles:
            sources[SAME_AS_QUERY] = self._of_queries
        if self.old is not None:
            old = self.old
            sources[FROM_OLD] = lambda _, texts: old.take(texts)
        return sources

    def _of_queries(self, ids: np.ndarray, texts: pl.DataFrame) -> Held:
        del texts
        assert self.of_queries is not None
        content_ids = self.contents.take(ids)[:, CONTENT]
        held = content_ids < self.queries
        return held, self.of_queries.take(content_ids[held])
