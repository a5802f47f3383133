"""All guide vectors of a corpus, mapped, and which text is which: what scales, neighbours and scores are made from."""

from __future__ import annotations

from dataclasses import dataclass

from ...shared.guide_index.memory_map import RowStore, VectorStore


@dataclass(frozen=True)
class Space:
    """Guide vectors by text id; queries come first, documents after them.

    Attributes:
        vectors: (texts, dim), as they are stored.
        contents: (texts, 2) int64: the smallest id with the same text, and the same text's id in the other role.
        queries: How many texts are queries.
    """

    vectors: VectorStore
    contents: RowStore
    queries: int
