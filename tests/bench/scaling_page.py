"""Writes docs/SCALING.md from tests/bench/scaling_page.md and the sizes that follow from the format.

Sizes of raw arrays follow from the format. Sizes of compressed columns are fitted to indexes of 10,000 to 1,000,000
texts (`python tests/bench/scale.py`).

python tests/bench/scaling_page.py
"""

from __future__ import annotations

import math

import numpy as np
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.guide_index.layout import CONTENT_COLUMNS, LOOKUP
from gistcache.shared.guide_index.quantize import VECTOR_DTYPES
from interleaved import REPOSITORY
from rich.filesize import decimal

SIZES = (1e7, 1e8, 1e9)
SHAPES = tuple((dim, dtype) for dim in (768, 1024) for dtype in VECTOR_DTYPES)
FLOAT32, FLOAT16, INT64 = 4, 2, 8

# The corpus: half of the texts are documents, and there is a pair for each anchor.
TEXT_BYTES, TEXT_TOKENS = 200, 50
# The guide, the device and its rate: BERT-large on a device that reaches 100 of its teraflops.
GUIDE_PARAMETERS, TERAFLOPS = 303e6, 100
PROBES, SEARCH_EFFICIENCY = 64, 0.05  # lists probed in each document shard; inverted lists are bound by memory
BATCH_SIZE = 1_024

HASH_BYTES = 17  # BLAKE2b of 16 bytes and what Parquet adds
COMPRESSED_ID = 2.7  # a column of ascending ids
COMPRESSED_TEXT = 0.5  # of a text's UTF-8
SCORE_BYTES = 4.9  # a neighbor's score, which hardly compresses, with its list's levels
NEIGHBOR_ID_BYTES_A_BIT = 0.2  # a neighbor's id, for each bit that the number of documents has
PAIR_BYTES, SCORE_ROW_BYTES = 8.1, 10.0
RECORD_BYTES = 197  # a file's line in the manifest
LISTS_A_ROOT = 4  # inverted lists: so many times the root of the number of documents
FLOPS_A_WEIGHT = 2  # a multiplication and an addition for each weight and token
PAGE = 4096
CONTENT_PAGES, LOOKUP_PAGES = 1, 2
PLAN_BLOCK, PLAN_BYTES_A_PAIR = 4_194_304, 230  # pairs dealt at a time, and the peak meanwhile
TEXT_COPIES, IDS_A_TEXT = 3, 305  # what reading holds of each text


def disk_bytes(texts: int, dim: int, value_bytes: int, settings: IndexSettings) -> dict[str, float]:
    """Bytes of each kind of file of an index, and of all."""
    documents = pairs = texts // 2
    shards = _document_shards(documents, settings)
    score = SCORE_BYTES + NEIGHBOR_ID_BYTES_A_BIT * math.log2(documents)
    sizes = {
        "texts": texts * (HASH_BYTES + COMPRESSED_ID + COMPRESSED_TEXT * TEXT_BYTES),
        "contents": texts * CONTENT_COLUMNS * INT64,
        "pairs": pairs * PAIR_BYTES,
        "lookup": pairs * LOOKUP.itemsize,
        "vectors": texts * dim * value_bytes,
        "density": texts * FLOAT32,
        "scores": pairs * (SCORE_ROW_BYTES + settings.neighbors * score),
        "faiss": sum(_faiss_bytes(rows, dim) for rows in shards),
        "manifest": _files(texts, settings) * RECORD_BYTES,
    }
    return sizes | {"all": sum(sizes.values())}


def work(texts: int, dim: int, value_bytes: int, settings: IndexSettings) -> dict[str, float]:
    """Hours of a device, memory in bytes, and counts of files."""
    documents = pairs = anchors = texts // 2
    shards = _document_shards(documents, settings)
    rate = TERAFLOPS * 1e12 * 3600
    lists = _lists(shards[0])
    probed = FLOPS_A_WEIGHT * dim * float(anchors) * len(shards) * (lists + PROBES * shards[0] / lists)
    pages = 2 * (math.ceil(dim * value_bytes / PAGE) + 1 + CONTENT_PAGES) + LOOKUP_PAGES
    return {
        "guide, device hours": FLOPS_A_WEIGHT * GUIDE_PARAMETERS * texts * TEXT_TOKENS / rate,
        "exact search, device hours": FLOPS_A_WEIGHT * dim * float(anchors) * documents / rate,
        "inverted lists, device hours": probed / (rate * SEARCH_EFFICIENCY),
        "document shards": len(shards),
        "memory a document shard": _faiss_bytes(shards[0], dim),
        "passed from document shard to document shard": anchors * settings.neighbors * (FLOAT32 + INT64),
        "memory of the first process": texts * (TEXT_BYTES * TEXT_COPIES + IDS_A_TEXT),
        "files": _files(texts, settings),
        "rows a shard": settings.shard_rows or 0,
        "trainer: memory of the plan": 2 * pairs * INT64 + min(pairs, PLAN_BLOCK) * PLAN_BYTES_A_PAIR,
        "trainer: read a step, nothing cached": BATCH_SIZE * pages * PAGE,
    }


def _document_shards(documents: int, settings: IndexSettings) -> list[int]:
    """Rows of each document shard."""
    rows = settings.document_shard_rows
    return [min(rows, documents - start) for start in range(0, documents, rows)]


def _faiss_bytes(documents: int, dim: int) -> int:
    """Bytes of a document shard's FAISS file, inverted lists of float16 codes."""
    return documents * (dim * FLOAT16 + INT64) + _lists(documents) * dim * FLOAT32


def _lists(documents: int) -> int:
    return min(documents, int(LISTS_A_ROOT * math.sqrt(documents)))


def _files(texts: int, settings: IndexSettings) -> int:
    """Shards: three kinds for texts, four for pairs, one for document shards."""
    rows = settings.shard_rows or texts
    return 4 * math.ceil(texts / rows) + 3 * math.ceil(texts / 2 / rows) + len(_document_shards(texts // 2, settings))


def table(figures_of) -> str:
    """Figures by size and shape, one column each."""
    heads, columns = [], []
    for texts, (dim, dtype) in ((texts, shape) for texts in SIZES for shape in SHAPES):
        settings = IndexSettings(guide="any").for_texts(int(texts))
        heads.append(f"{texts / 1e6:,.0f} M, {dim} {dtype}")
        columns.append(figures_of(int(texts), dim, np.dtype(dtype).itemsize, settings))
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in columns[0]:
        cells = [_cell(name, column[name]) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    if name.endswith("hours"):
        return f"{value:,.1f}"
    return f"{value:,.0f}" if name in ("files", "rows a shard", "document shards") else decimal(round(value))


def main() -> None:
    page = (REPOSITORY / "tests" / "bench" / "scaling_page.md").read_text(encoding="utf-8")
    page = page.replace("{disk}", table(disk_bytes)).replace("{work}", table(work))
    (REPOSITORY / "docs" / "SCALING.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
