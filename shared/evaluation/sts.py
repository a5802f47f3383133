"""Semantic textual similarity (STS): agreement of a model's similarities with the scores of sentence pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..data.inputs import find_sources
from ..data.readers import read_rows
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
    rows = [
        row
        for source in find_sources([path])
        for _, row in read_rows(source, STS_COLUMNS.__contains__, header=STS_COLUMNS)
    ]
    cells: list[list[Any]] = [[row.get(name) for name in STS_COLUMNS] for row in rows if isinstance(row, dict)]
    try:
        scored = [(_printable(one), _printable(other), float(score)) for one, other, score in cells if one and other]
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


def _printable(text: object) -> str:
    """The text with bytes that are no UTF-8 replaced, which a tokenizer would refuse."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
