"""What an index of a given size will take: bytes by file, memory, work of the guide. Pure arithmetic.

Sizes of raw arrays follow from the format. Sizes of compressed columns are fitted to indexes of 10,000 to 1,000,000
texts (`python tests/bench/scale.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT32, FLOAT16, INT64, INT32 = 4, 2, 8, 4
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


@dataclass(frozen=True)
class Corpus:
    """How large a corpus is.

    Attributes:
        texts: Unique texts of both roles.
        pairs: Training pairs.
        documents: How many of the texts are documents.
        text_bytes: Mean length of a text in bytes of UTF-8.
        text_tokens: Mean length of a text in the guide's tokens.
    """

    texts: int
    pairs: int
    documents: int
    text_bytes: float
    text_tokens: float


@dataclass(frozen=True)
class Shape:
    """What an index keeps of a text: see the settings of stage 1 of the same names."""

    dim: int
    neighbors: int = 50
    part_rows: int = 8_192
    exact_limit: int = 100_000


def file_bytes(corpus: Corpus, shape: Shape) -> dict[str, int]:
    """Bytes of each kind of file of the index, by its folder's name."""
    neighbors = min(shape.neighbors, corpus.documents)
    neighbor = SCORE_BYTES + NEIGHBOR_ID_BYTES_A_BIT * math.log2(max(2, corpus.documents))
    sizes = {
        "texts": corpus.texts * (HASH_BYTES + 2 * COMPRESSED_ID + COMPRESSED_TEXT * corpus.text_bytes),
        "pairs": corpus.pairs * PAIR_BYTES,
        "vectors": corpus.texts * shape.dim * FLOAT16,
        "scales": corpus.texts * FLOAT32,
        "scores": corpus.pairs * (SCORE_ROW_BYTES + neighbors * neighbor),
        "faiss": faiss_bytes(corpus.documents, shape),
        "manifest": parts(corpus, shape) * RECORD_BYTES,
    }
    return {name: round(size) for name, size in sizes.items()}


def faiss_bytes(documents: int, shape: Shape) -> int:
    """Bytes of the FAISS file, which is also what it takes in memory while it is built."""
    if documents <= shape.exact_limit:
        return documents * (shape.dim * FLOAT32 + INT64)
    lists = round(LISTS_A_ROOT * math.sqrt(documents))
    return documents * (shape.dim * FLOAT16 + INT64) + lists * shape.dim * FLOAT32


def parts(corpus: Corpus, shape: Shape) -> int:
    """Part files: three kinds for texts, two for pairs."""
    return 3 * math.ceil(corpus.texts / shape.part_rows) + 2 * math.ceil(corpus.pairs / shape.part_rows)


def guide_flops(corpus: Corpus, weights: float) -> float:
    """Floating-point operations of embedding every text once with a guide of so many weights outside its embeddings."""
    return FLOPS_A_WEIGHT * weights * corpus.texts * corpus.text_tokens


def search_flops(corpus: Corpus, shape: Shape) -> float:
    """Floating-point operations of exact neighbour search: every anchor against every document."""
    return FLOPS_A_WEIGHT * shape.dim * float(corpus.texts - corpus.documents) * corpus.documents


def trainer_bytes(corpus: Corpus) -> int:
    """Memory that a trainer holds for every text and pair: content ids, pairs, known positives, one epoch's plan."""
    wide = INT32 if corpus.texts < 2**31 else INT64
    of_texts, of_pairs = 2 * wide, 4 * wide
    return corpus.texts * of_texts + corpus.pairs * (of_pairs + 2 * INT64)


def step_read_bytes(batch_size: int, negatives: int, shape: Shape) -> int:
    """Bytes that a training step reads from disk where nothing is cached: whole pages around each guide vector."""
    pages = math.ceil(shape.dim * FLOAT16 / PAGE) + 1
    return batch_size * (2 + negatives) * pages * PAGE
