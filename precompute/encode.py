"""Parts of text -> parts of guide vectors, each text through the guide once."""

from __future__ import annotations

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
    kept = sum(
        stop - start
        for (start, stop), path in zip(ranges, paths, strict=True)
        if path.relative_to(layout.root).as_posix() in journal.done
    )
    records: list[PartRecord] = []
    with step("embed texts", corpus.texts.height, "texts", done=kept) as advance:
        for (start, stop), path in zip(ranges, paths, strict=True):

            def make(start: int = start, stop: int = stop, path: object = path) -> PartRecord:
                vectors = _vectors(guide, corpus, RowStore(layout.root, records), (start, stop), advance)
                return commit_array(layout.root, layout.part("vectors", len(records)), vectors)

            records.append(journal.keep_or_make(path, make))
    return records


def _vectors(guide: Guide, corpus: Corpus, written: RowStore, ids: tuple[int, int], advance: Advance) -> np.ndarray:
    """(stop - start, dim) float16 of the part of text ids start .. stop - 1, which all have one role."""
    start, stop = ids
    frame = corpus.texts.slice(start, stop - start)
    content_ids = frame["content_id"].to_numpy()
    copied = (content_ids < corpus.queries) if guide.same_for_both_roles and start >= corpus.queries else None
    if copied is None or not copied.any():
        return guide.encode(frame["text"].to_list(), frame["role"][0], advance)
    vectors = np.empty((len(frame), guide.dim), dtype=np.float16)
    vectors[copied] = written.take(content_ids[copied])
    advance(int(copied.sum()))
    vectors[~copied] = guide.encode(frame.filter(~copied)["text"].to_list(), frame["role"][0], advance)
    return vectors
