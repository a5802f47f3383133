"""Writes docs/SCALING.md from tests/bench/scaling_page.md and the arithmetic below.

python tests/bench/scaling_page.py

Sizes of raw arrays follow from the format; bytes of compressed columns are fitted to indexes of 10,000 to 1,000,000
texts (`python tests/bench/scale.py`).
"""

from __future__ import annotations

import math

from gistcache.shared.guide_index.layout import CONTENT_COLUMNS, LOOKUP
from interleaved import REPOSITORY
from markdown_table import markdown_table
from rich.filesize import decimal

SIZES, DIMS, VALUE_BYTES = (1e7, 1e8, 1e9), (768, 1024), {"float16": 2, "int8": 1}
FLOAT32, FLOAT16, INT64, PAGE = 4, 2, 8, 4096
# Compressed bytes: of a text beside its own, of a byte of text, of a pair, of a pair's scores, of a neighbor beside its
# id, of a neighbor's id for each bit that the number of documents has; and a file's line in the manifest.
TEXT, OF_TEXT, PAIR, SCORES, NEIGHBOR, NEIGHBOR_BIT, RECORD = 19.7, 0.5, 8.1, 9.0, 4.9, 0.2, 197
LEAST_SHARD_ROWS, MOST_SHARDS, DOCUMENT_SHARD_ROWS = 8_192, 4_096, 4_194_304
PLAN_BLOCK, PLAN_BYTES_A_PAIR = 4_194_304, 230  # peak while a block is dealt (`python tests/bench/scale.py`)
READ_COPIES, READ_IDS = (
    3,
    305,
)  # what reading holds of a text: copies of it, and bytes of ids (`scale.py --read-memory`)
# Assumed; half of the texts are documents.
TEXT_BYTES, TEXT_TOKENS, NEIGHBORS, BATCH = 200, 50, 50, 1_024
GUIDE_WEIGHTS, DEVICE_RATE, PROBES, PROBED_SHARE = 303e6, 100e12 * 3600, 64, 0.05  # the rate in operations an hour


def disk(texts: float, dim: int, value_bytes: int) -> dict[str, float]:
    """Bytes of an index by kind of file."""
    pairs = documents = texts / 2
    sizes = {
        "texts": texts * (TEXT + OF_TEXT * TEXT_BYTES),
        "contents": texts * CONTENT_COLUMNS * INT64,
        "pairs": pairs * PAIR,
        "lookup": pairs * LOOKUP.itemsize,
        "vectors": texts * dim * value_bytes,
        "density": texts * FLOAT32,
        "scores": pairs * (SCORES + NEIGHBORS * (NEIGHBOR + NEIGHBOR_BIT * math.log2(documents))),
        "faiss": sum(faiss_bytes(rows, dim) for rows in document_shards(texts)),
        "manifest": shard_files(texts) * RECORD,
    }
    return sizes | {"all": sum(sizes.values())}


def work(texts: float, dim: int, value_bytes: int) -> dict[str, str]:
    """Device hours, memory and files of both stages."""
    anchors, shards = texts / 2, document_shards(texts)
    lists = inverted_lists(shards[0])
    probed = len(shards) * (lists + PROBES * shards[0] / lists)
    a_pair = 2 * (math.ceil(dim * value_bytes / PAGE) + 1 + 1) + 2  # pages: vectors and contents of a text, lookup
    return {
        "guide, device hours": f"{2 * GUIDE_WEIGHTS * texts * TEXT_TOKENS / DEVICE_RATE:,.1f}",
        "exact search, device hours": f"{2 * dim * anchors * sum(shards) / DEVICE_RATE:,.1f}",
        "inverted lists, device hours": f"{2 * dim * anchors * probed / (DEVICE_RATE * PROBED_SHARE):,.1f}",
        "document shards": f"{len(shards):,}",
        "memory a document shard": decimal(round(faiss_bytes(shards[0], dim))),
        "passed from shard to shard": decimal(round(anchors * NEIGHBORS * (FLOAT32 + INT64))),
        "memory of the first process": decimal(round(texts * (TEXT_BYTES * READ_COPIES + READ_IDS))),
        "shard files": f"{shard_files(texts):,}",
        "rows a shard": f"{shard_rows(texts):,}",
        "memory of the plan": decimal(round(2 * anchors * INT64 + min(anchors, PLAN_BLOCK) * PLAN_BYTES_A_PAIR)),
        "read a step, nothing cached": decimal(BATCH * a_pair * PAGE),
    }


def document_shards(texts: float) -> list[int]:
    """Documents of each document shard."""
    documents = round(texts / 2)
    return [min(DOCUMENT_SHARD_ROWS, documents - start) for start in range(0, documents, DOCUMENT_SHARD_ROWS)]


def faiss_bytes(rows: int, dim: int) -> float:
    """Bytes of a document shard's FAISS file: inverted lists of float16 codes."""
    return rows * (dim * FLOAT16 + INT64) + inverted_lists(rows) * dim * FLOAT32


def inverted_lists(rows: int) -> int:
    """How many inverted lists a document shard has."""
    return int(4 * math.sqrt(rows))


def shard_rows(texts: float) -> int:
    """Rows of a shard: a power of two, so that a kind has no more than MOST_SHARDS."""
    return max(LEAST_SHARD_ROWS, 2 ** math.ceil(math.log2(texts / MOST_SHARDS)))


def shard_files(texts: float) -> int:
    """Four kinds of files for texts, four for pairs, and the document shards."""
    rows = shard_rows(texts)
    return 4 * math.ceil(texts / rows) + 4 * math.ceil(texts / 2 / rows) + len(document_shards(texts))


def main() -> None:
    shapes = [(texts, dim, dtype) for texts in SIZES for dim in DIMS for dtype in VALUE_BYTES]
    heads = ["", *(f"{texts / 1e6:,.0f} M, {dim} {dtype}" for texts, dim, dtype in shapes)]
    page = (REPOSITORY / "tests" / "bench" / "scaling_page.md").read_text(encoding="utf-8")
    for name, of_shape in (("{disk}", disk), ("{work}", work)):
        columns = [of_shape(texts, dim, VALUE_BYTES[dtype]) for texts, dim, dtype in shapes]
        shown = [{k: v if isinstance(v, str) else decimal(round(v)) for k, v in each.items()} for each in columns]
        page = page.replace(name, markdown_table([heads, *([row, *(each[row] for each in shown)] for row in shown[0])]))
    (REPOSITORY / "docs" / "SCALING.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
