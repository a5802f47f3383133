"""What an index of a given size will take: bytes by file, memory, work of the guide. Pure arithmetic.

Sizes of raw arrays follow from the format. Sizes of compressed columns are fitted to indexes of 10,000 to 1,000,000
texts (`python tests/bench/scale.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .guide_index.layout import CONTENT_COLUMNS, LOOKUP

FLOAT32, FLOAT16, INT64 = 4, 2, 8
HASH_BYTES = 17  # BLAKE2b of 16 bytes and what Parquet adds
COMPRESSED_ID = 2.7  # a column of ascending ids
COMPRESSED_TEXT = 0.5  # of a text's UTF-8
SCORE_BYTES = 4.9  # a neighbour's score, which hardly compresses, with its list's levels
NEIGHBOR_ID_BYTES_A_BIT = 0.2  # a neighbour's id, for each bit that the number of documents has
PAIR_BYTES, SCORE_ROW_BYTES = 8.1, 10.0
RECORD_BYTES = 197  # a part's line in the manifest
LISTS_A_ROOT = 4  # inverted lists: so many times the root of the number of documents
FLOPS_A_WEIGHT = 2  # a multiplication and an addition for each weight and token
PAGE = 4096
CONTENT_PAGES, LOOKUP_PAGES = 1, 2
PLAN_BLOCK = 4_194_304  # pairs that a batch plan deals at a time
PLAN_BYTES_A_PAIR = 230  # peak while a block is dealt (`python tests/bench/scale.py`)
LEAST_PART_ROWS, MOST_PARTS = 8_192, 4_096
# What stage 1 does where nothing else is asked for.
NEIGHBORS, SLICE_ROWS, EXACT_LIMIT = 50, 4_194_304, 100_000


@dataclass(frozen=True)
class CorpusSize:
    """How large a corpus is.

    Attributes:
        texts: Unique texts of both roles.
        pairs: Training pairs.
        documents: How many of the texts are documents.
        text_bytes: Mean length of a text in bytes of UTF-8.
        text_tokens: Mean length of a text in the guide's tokens.
        negatives: Negatives of all pairs together.
    """

    texts: int
    pairs: int
    documents: int
    text_bytes: float
    text_tokens: float
    negatives: int = 0


def default_shard_rows(texts: int) -> int:
    """A power of two from 8,192 up, so that the texts fill no more than 4,096 parts."""
    rows = LEAST_PART_ROWS
    while rows * MOST_PARTS < texts:
        rows *= 2
    return rows


@dataclass(frozen=True)
class Shape:
    """What an index keeps of a text: see the settings of stage 1 of the same names."""

    dim: int
    value_bytes: int = FLOAT16
    neighbors: int = NEIGHBORS
    shard_rows: int | None = None
    document_shard_rows: int = SLICE_ROWS
    exact_limit: int = EXACT_LIMIT

    def rows_of_parts(self, texts: int) -> int:
        """Rows a part file; where none are given, so many that the manifest stays small."""
        return self.shard_rows or default_shard_rows(texts)


def file_bytes(corpus: CorpusSize, shape: Shape) -> dict[str, int]:
    """Bytes of each kind of file of the index, by its folder's name."""
    neighbors = min(shape.neighbors, corpus.documents)
    neighbor = SCORE_BYTES + NEIGHBOR_ID_BYTES_A_BIT * math.log2(max(2, corpus.documents))
    sizes = {
        "texts": corpus.texts * (HASH_BYTES + COMPRESSED_ID + COMPRESSED_TEXT * corpus.text_bytes),
        "contents": corpus.texts * CONTENT_COLUMNS * INT64,
        "pairs": corpus.pairs * PAIR_BYTES,
        "lookup": corpus.pairs * LOOKUP.itemsize,
        "negatives": corpus.negatives * INT64,
        "vectors": corpus.texts * shape.dim * shape.value_bytes,
        "density": corpus.texts * FLOAT32,
        "scores": corpus.pairs * (SCORE_ROW_BYTES + neighbors * neighbor),
        "faiss": sum(slice_bytes(corpus.documents, shape)),
        "manifest": parts(corpus, shape) * RECORD_BYTES,
    }
    return {name: round(size) for name, size in sizes.items()}


def slice_bytes(documents: int, shape: Shape) -> list[int]:
    """Bytes of each slice of documents: of its FAISS file, and the memory that building or searching it takes."""
    return [
        _faiss_bytes(min(shape.document_shard_rows, documents - start), shape, exact=documents <= shape.exact_limit)
        for start in range(0, documents, shape.document_shard_rows)
    ]


def _faiss_bytes(documents: int, shape: Shape, *, exact: bool) -> int:
    if exact:
        return documents * (shape.dim * FLOAT32 + INT64)
    return documents * (shape.dim * FLOAT16 + INT64) + inverted_lists(documents) * shape.dim * FLOAT32


def inverted_lists(documents: int) -> int:
    """How many inverted lists a slice of so many documents has."""
    return min(documents, int(LISTS_A_ROOT * math.sqrt(documents)))


def parts(corpus: CorpusSize, shape: Shape) -> int:
    """Part files: four kinds for texts, four for pairs, one for slices, and the unrounded sample."""
    rows = shape.rows_of_parts(corpus.texts)
    of_texts, of_pairs = math.ceil(corpus.texts / rows), math.ceil(corpus.pairs / rows)
    return 4 * of_texts + 4 * of_pairs + len(slice_bytes(corpus.documents, shape)) + 1


def guide_flops(corpus: CorpusSize, weights: float) -> float:
    """Floating-point operations of embedding every text once with a guide of so many weights outside its embeddings."""
    return FLOPS_A_WEIGHT * weights * corpus.texts * corpus.text_tokens


def search_flops(corpus: CorpusSize, shape: Shape) -> float:
    """Floating-point operations of exact neighbour search: every anchor against every document."""
    return FLOPS_A_WEIGHT * shape.dim * float(corpus.texts - corpus.documents) * corpus.documents


def probed_flops(corpus: CorpusSize, shape: Shape, probes: int) -> float:
    """As ``search_flops``, by inverted lists of which so many are probed in each slice."""
    count, rows = len(slice_bytes(corpus.documents, shape)), min(corpus.documents, shape.document_shard_rows)
    lists = max(1, inverted_lists(rows))
    looked_at = lists + probes * rows / lists
    return FLOPS_A_WEIGHT * shape.dim * float(corpus.texts - corpus.documents) * count * looked_at


def found_bytes(corpus: CorpusSize, shape: Shape) -> int:
    """Bytes that pass from one slice to the next: the top k of every anchor."""
    anchors = corpus.texts - corpus.documents
    return anchors * shape.neighbors * (FLOAT32 + INT64) if corpus.documents > shape.document_shard_rows else 0


def trainer_bytes(corpus: CorpusSize) -> int:
    """Memory that a trainer holds beside model and batch: pair ids and one block's plan. The rest is mapped."""
    return 2 * corpus.pairs * INT64 + min(corpus.pairs, PLAN_BLOCK) * PLAN_BYTES_A_PAIR


def step_read_bytes(batch_size: int, negatives: int, shape: Shape) -> int:
    """Bytes that a training step reads from disk where nothing is cached: whole pages around each row."""
    pages = math.ceil(shape.dim * shape.value_bytes / PAGE) + 1
    of_texts = (2 + negatives) * (pages + CONTENT_PAGES)
    return batch_size * (of_texts + LOOKUP_PAGES) * PAGE
