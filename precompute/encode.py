"""Parts of text -> parts of guide vectors, each text through the guide once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from ..shared.parts import Journal, PartRecord, commit_array
from ..shared.progress import Advance, step
from ..shared.schema import Layout
from ..shared.vectors import RowStore
from .corpus import Corpus
from .guides import Guide


def encode_corpus(guide: Guide, corpus: Corpus, layout: Layout, journal: Journal, part_rows: int) -> list[PartRecord]:
    """Write every vector part that is not there yet.

    A guide that reads both roles alike embeds a text used in both once: the document's row is copied from the query's,
    whose part is written before.

    Returns:
        The records of all parts, in text_id order.
    """
    ranges = corpus.part_ranges(part_rows)
    paths = [layout.part("vectors", number) for number in range(len(ranges))]
    done = [path.relative_to(layout.root).as_posix() in journal.done for path in paths]
    kept = sum(stop - start for (start, stop), there in zip(ranges, done, strict=True) if there)
    query_parts = sum(start < corpus.queries for start, _ in ranges)
    written: list[Future[PartRecord]] = []

    def of_queries() -> RowStore:
        return RowStore(layout.root, [future.result() for future in written[:query_parts]])

    # One thread writes while the next part is embedded; leaving the block waits for it, also on an interruption.
    with step("embed texts", corpus.texts.height, "texts", done=kept) as advance, ThreadPoolExecutor(1) as writer:
        for ids, path, there in zip(ranges, paths, done, strict=True):
            vectors = None
            if not there:
                vectors = _vectors(guide, corpus, ids, of_queries, advance)
            written.append(writer.submit(journal.keep_or_make, path, partial(_commit, layout, path, vectors)))
            if len(written) > 2:
                written[-3].result()  # what went wrong in writing ends the run here, not after hours
    return [future.result() for future in written]


def _commit(layout: Layout, path: Path, vectors: np.ndarray | None) -> PartRecord:
    assert vectors is not None
    return commit_array(layout.root, path, vectors)


def _vectors(
    guide: Guide, corpus: Corpus, ids: tuple[int, int], of_queries: Callable[[], RowStore], advance: Advance
) -> np.ndarray:
    """(stop - start, dim) float16 of the part of text ids start .. stop - 1, which all have one role."""
    start, stop = ids
    frame = corpus.texts.slice(start, stop - start)
    content_ids = frame["content_id"].to_numpy()
    copied = (content_ids < corpus.queries) if guide.same_for_both_roles and start >= corpus.queries else None
    if copied is None or not copied.any():
        return guide.encode(frame["text"].to_list(), frame["role"][0], advance)
    vectors = np.empty((len(frame), guide.dim), dtype=np.float16)
    vectors[copied] = of_queries().take(content_ids[copied])
    advance(int(copied.sum()))
    vectors[~copied] = guide.encode(frame.filter(~copied)["text"].to_list(), frame["role"][0], advance)
    return vectors
