"""Parts of text -> parts of guide vectors, each text through the guide once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ..shared.parts import Journal, PartRecord, commit_array
from ..shared.progress import Advance, step
from ..shared.schema import Layout
from ..shared.vectors import RowStore
from .corpus import Corpus
from .guides import Guide
from .reuse import OldVectors

COMPUTED, KEPT = "computed", "kept from an earlier run"
SAME_AS_QUERY, FROM_OLD = "same text as an anchor", "taken from the older index"

Held = tuple[np.ndarray, np.ndarray]  # which of the texts asked for (n,) bool, and their vectors (held, dim)
Source = Callable[[pl.DataFrame], Held]


def encode_corpus(
    guide: Guide, corpus: Corpus, layout: Layout, journal: Journal, part_rows: int, old: OldVectors | None = None
) -> tuple[list[PartRecord], Counter[str]]:
    """Write every vector part that is not there yet.

    A guide that reads both roles alike embeds a text used in both once: the document's row is copied from the query's,
    whose part is written before.

    Args:
        guide: The guide.
        corpus: All texts.
        layout: Where the parts go.
        journal: Which parts are there.
        part_rows: Texts a part.
        old: Vectors that need not be computed again.

    Returns:
        The records of all parts, in text_id order, and how many texts came from where.
    """
    ranges = corpus.part_ranges(part_rows)
    paths = [layout.part("vectors", number) for number in range(len(ranges))]
    done = [path.relative_to(layout.root).as_posix() in journal.done for path in paths]
    kept = sum(stop - start for (start, stop), there in zip(ranges, done, strict=True) if there)
    query_parts = sum(start < corpus.queries for start, _ in ranges)
    written: list[Future[PartRecord]] = []

    def of_queries(texts: pl.DataFrame) -> Held:
        content_ids = texts["content_id"].to_numpy()
        held = (content_ids < corpus.queries) & (texts["role"] == "document").to_numpy()
        if not held.any():
            return held, np.empty((0, guide.dim), dtype=np.float16)
        store = RowStore(layout.root, [future.result() for future in written[:query_parts]])
        return held, store.take(content_ids[held])

    sources: dict[str, Source] = {SAME_AS_QUERY: of_queries} if guide.same_for_both_roles else {}
    sources |= {FROM_OLD: old.take} if old else {}
    counts = Counter({KEPT: kept} if kept else {})

    # One thread writes while the next part is embedded; leaving the block waits for it, also on an interruption.
    with step("embed texts", corpus.texts.height, "texts", done=kept) as advance, ThreadPoolExecutor(1) as writer:
        for ids, path, there in zip(ranges, paths, done, strict=True):
            vectors = None
            if not there:
                vectors = _vectors(guide, corpus.texts.slice(ids[0], ids[1] - ids[0]), sources, counts, advance)
            written.append(writer.submit(journal.keep_or_make, path, partial(_commit, layout, path, vectors)))
            if len(written) > 2:
                written[-3].result()  # what went wrong in writing ends the run here, not after hours
    return [future.result() for future in written], counts


def _commit(layout: Layout, path: Path, vectors: np.ndarray | None) -> PartRecord:
    assert vectors is not None
    return commit_array(layout.root, path, vectors)


def _vectors(
    guide: Guide, texts: pl.DataFrame, sources: dict[str, Source], counts: Counter[str], advance: Advance
) -> np.ndarray:
    """(texts, dim) float16 of one part, whose texts all have one role: what the sources hold, and the rest computed."""
    vectors = np.empty((texts.height, guide.dim), dtype=np.float16)
    missing = np.arange(texts.height)
    for name, source in sources.items():
        held, taken = source(texts[missing])
        vectors[missing[held]] = taken
        counts[name] += len(taken)
        advance(len(taken))
        missing = missing[~held]
    if missing.size:
        vectors[missing] = guide.encode(texts["text"][missing].to_list(), texts["role"][0], advance)
        counts[COMPUTED] += missing.size
    return vectors
