"""All guide vectors of a corpus, mapped, and which text is which: what scales, neighbours and scores are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..shared.schema import TWIN
from ..shared.vectors import RowStore, VectorStore
from .search import BLOCK_ROWS


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

    @property
    def documents(self) -> int:
        """How many texts are documents."""
        return len(self.vectors) - self.queries

    def document_blocks(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and vectors of the documents ``start .. stop``, block by block."""
        for begin, block in self.vectors.blocks(start, stop, BLOCK_ROWS):
            yield np.arange(begin, begin + len(block)), block

    def own_document(self, anchor_ids: np.ndarray) -> np.ndarray:
        """(n,) id of the document with the anchor's own text; -1 where there is none."""
        return self.contents.take(anchor_ids)[:, TWIN]
