"""All guide vectors of a corpus, mapped, and which text is which: what density, neighbours and scores are made from."""

from __future__ import annotations

from dataclasses import dataclass

from ...shared.guide_index.memory_map import MappedRows, MappedVectors


@dataclass(frozen=True)
class GuideVectors:
    """Guide vectors by text id; queries come first, documents after them.

    Attributes:
        vectors: (texts, dim), as they are stored.
        contents: (texts, 2) int64: the smallest id with the same text, and the same text's id in the other role.
        queries: How many texts are queries.
    """

    vectors: MappedVectors
    contents: MappedRows
    queries: int
