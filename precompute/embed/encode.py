"""Shards of texts -> shards of guide vectors; each text goes through the guide once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.layout import CONTENT
from ...shared.guide_index.memory_map import MappedRows
from ...shared.guide_index.quantize import quantize
from ...shared.progress import Advance, step
from ...shared.storage.integrity import FileRecord
from ...shared.types import Role, VectorDType
from ..corpus import Corpus
from ..guides.base import Guide
from ..output.shards import Shards
from ..output.store import Store
from ..run.jobs import ShardResult
from ..run.local import InProcess
from .reuse import OldVectors
from .rounding import SampledPairs, changed_decisions, exact_vectors

# Where the vector of a text came from, as the summary of a build names it.
COMPUTED, EXISTING = "computed", "kept from an earlier run"
SAME_AS_QUERY, FROM_OLD = "same text as an anchor", "taken from the older index"

EXPECTED_TEXTS = 8_192

# Vectors (rows, dim) as stored, and the stats of the shard's result.
EncodedShard = tuple[np.ndarray, dict[str, Any]]


@dataclass(frozen=True)
class EncodeJob:
    """Computes the guide vectors of one shard of texts.

    The stats of a shard are ``sources`` (texts by where their vectors came from) and, of sampled texts that it
    computes, ``sample_ids`` and ``sample_vectors`` (float32, before rounding).

    Attributes:
        texts: The shards of texts; each has one role.
        query_vectors: The vectors of all queries, where those of equal documents are copied from them.
        sample: (m,) text ids whose vectors are wanted before rounding.
    """

    store: Store
    guide: Guide
    texts: list[FileRecord]
    contents: MappedRows
    query_vectors: MappedRows | None
    old: OldVectors | None
    sample: np.ndarray
    dtype: VectorDType

    def compute(self, number: int, advance: Advance) -> EncodedShard:
        """Copy what there is, and send the rest through the guide."""
        texts = self.store.frame(self.texts[number], "texts")
        vectors, sources = np.empty((texts.height, self.guide.dim), dtype=self.dtype), Counter[str]()
        missing = np.arange(texts.height)
        for source, stored, rows in self._stored(texts):
            existing, missing = missing[rows[missing] >= 0], missing[rows[missing] < 0]
            vectors[existing] = stored.take(rows[existing])
            sources[source] = len(existing)
            advance(len(existing))
        rest = texts[missing]
        computed = np.empty((0, self.guide.dim), dtype=np.float32)
        if rest.height:
            computed = self.guide.encode(rest["text"].to_list(), texts["role"][0], advance)
            vectors[missing] = quantize(computed, self.dtype)
            sources[COMPUTED] = rest.height
        ids = rest["text_id"].to_numpy()
        sampled = np.isin(ids, self.sample)
        return vectors, {"sources": +sources, "sample_ids": ids[sampled], "sample_vectors": computed[sampled]}

    def commit(self, number: int, value: EncodedShard) -> ShardResult:
        """Write the vectors."""
        vectors, stats = value
        return ShardResult(number, self.store.commit_shard("vectors", number, vectors), stats)

    def _stored(self, texts: pl.DataFrame) -> Iterator[tuple[str, MappedRows, np.ndarray]]:
        """Yield each source of vectors that exist, and the row of each text in it, -1 where it lacks the text."""
        if self.query_vectors:
            content_ids = self.contents.take(texts["text_id"].to_numpy())[:, CONTENT]
            yield SAME_AS_QUERY, self.query_vectors, np.where(content_ids < len(self.query_vectors), content_ids, -1)
        if self.old:
            yield FROM_OLD, self.old.vectors, self.old.find(texts)


def embed_corpus(
    shards: Shards, guide: Guide, corpus: Corpus, old: OldVectors | None, dtype: VectorDType
) -> tuple[Counter[str], dict[str, int] | None]:
    """Write the guide vectors of the queries, then of the documents.

    Returns:
        Texts by where their vectors came from, and what rounding changes: of an older index its own figure, if any.
    """
    ranges = shards.ranges("texts")
    existing = sum(stop - start for number, (start, stop) in enumerate(ranges) if shards.existing("vectors", number))
    query_shards = sum(start < corpus.queries for start, _ in ranges)
    sample = SampledPairs.draw(corpus, roles_alike=guide.same_for_both_roles)
    sample_ids, places = np.unique(sample.text_ids, return_inverse=True)
    job = EncodeJob(
        shards.store, guide, shards.records["texts"], shards.rows("contents"),
        query_vectors=None, old=old, sample=sample_ids[:0] if old else sample_ids, dtype=dtype,
    )  # fmt: skip
    engine = None if guide.runs_in_workers else InProcess()
    with step("embed texts", corpus.texts.height, "texts", done=existing) as advance:
        results = shards.fill("vectors", job, range(query_shards), advance, engine)
        if guide.same_for_both_roles:
            job = replace(job, query_vectors=shards.rows("vectors"))
        results += shards.fill("vectors", job, range(query_shards, len(ranges)), advance, engine)
    sources = sum((result.stats["sources"] for result in results), +Counter({EXISTING: existing}))
    if old:
        return sources, old.rounding
    exact = exact_vectors(guide, corpus, sample_ids, (result.stats for result in results))
    stored, pairs = shards.rows("vectors").take(sample_ids), places.reshape(-1, 2)
    return sources, changed_decisions(sample, exact[pairs], stored[pairs])


def expected_texts(
    corpus: Corpus, held_out: RetrievalSet | None, old: OldVectors | None
) -> Iterator[tuple[Role, list[str]]]:
    """Every text that a build sends to its guide: those of the corpus that an older index lacks, and held-out ones."""
    for role in ("query", "document"):
        for texts in corpus.texts.filter(pl.col("role") == role).iter_slices(EXPECTED_TEXTS):
            yield role, (texts.filter(old.find(texts) < 0) if old else texts)["text"].to_list()
    if held_out:
        yield "query", list(held_out.queries.values())
        yield "document", list(held_out.corpus.values())
