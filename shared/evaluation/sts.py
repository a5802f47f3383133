"""Semantic textual similarity (STS): agreement of a model's similarities with the scores of sentence pairs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..data.inputs import Source, find_sources, unreadable
from ..data.readers import delimited_cells, read_rows
from ..errors import InputError
from ..models.onednn import OneDNNLinear

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STS_COLUMNS = ("sentence1", "sentence2", "score")


def evaluate_sts(model: SentenceTransformer, path: str) -> dict[str, float]:
    """Spearman correlation of cosine similarity with the scores of a file, by sentence-transformers' evaluator.

    Args:
        model: The model.
        path: CSV, TSV, JSONL or Parquet with columns ``sentence1``, ``sentence2``, ``score``; a CSV of three columns
            may come without a header.

    Raises:
        InputError: The file has no such rows.
    """
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    first, second, scores = _read_scored_pairs(path)
    evaluator = EmbeddingSimilarityEvaluator(first, second, scores, similarity_fn_names=["cosine"], write_csv=False)
    with OneDNNLinear():
        return {"spearman": float(evaluator(model)["spearman_cosine"])}


def _read_scored_pairs(path: str) -> tuple[list[str], list[str], list[float]]:
    try:
        rows = [row for source in find_sources([path]) for row in _cells(source)]
    except (csv.Error, OSError, EOFError) as error:
        raise unreadable(path, error) from error
    try:
        scored = [(_printable(a), _printable(b), float(score)) for a, b, score in rows if a and b]
        if not scored:
            raise ValueError("no row has two sentences and a score")
        if not all(math.isfinite(score) for _, _, score in scored):
            raise ValueError("a score is no number")
    except (ValueError, TypeError) as error:
        raise InputError(
            "The file holds no scored sentence pairs",
            where=f"{path}: {error}",
            fix="give columns sentence1, sentence2, score, or a CSV of these three without a header",
        ) from error
    first, second, scores = map(list, zip(*scored, strict=True))
    return first, second, scores


def _cells(source: Source) -> Iterator[tuple[Any, Any, Any]]:
    """Yield sentence, sentence, score of each row; a delimited file may come without a header."""
    if source.format not in ("csv", "tsv"):
        fields = (row for _, row in read_rows(source) if isinstance(row, dict))
        yield from (tuple(row.get(name) for name in STS_COLUMNS) for row in fields)  # type: ignore[misc]
        return
    rows = [cells for _, cells in delimited_cells(source, strict=False) if cells]
    columns = [0, 1, 2]
    if rows and set(STS_COLUMNS) <= set(rows[0]):
        columns = [rows[0].index(name) for name in STS_COLUMNS]
        del rows[0]
    yield from (tuple(cells[column] for column in columns) for cells in rows if len(cells) > max(columns))  # type: ignore[misc]


def _printable(text: object) -> str:
    """A text with bytes that are no UTF-8 replaced, which a tokenizer would refuse."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
