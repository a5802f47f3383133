"""How good a model is: retrieval on held-out pairs, and agreement with scored sentence pairs (STS).

Both are measured by sentence-transformers' own evaluators.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..data.columns import Columns
from ..data.inputs import Source, find_sources, unreadable
from ..data.pairs import Pair, read_pairs
from ..data.readers import MAX_LINE_BYTES, read_rows
from ..errors import InputError
from ..models.onednn import OneDNNLinear
from ..progress import shows_bars
from ..types import METRICS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STS_COLUMNS = ("sentence1", "sentence2", "score")


class Embedder(Protocol):
    """Whatever embeds texts by role: a SentenceTransformer does."""

    def encode_query(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as the evaluators call it)
        """Texts to a tensor."""
        ...

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Texts to a tensor."""
        ...


@dataclass(frozen=True)
class RetrievalSet:
    """Held-out pairs as a retrieval task: each unique anchor against every unique positive and negative.

    Documents are told apart by their text, so a duplicate of the right document is the right document; an anchor with
    several positives has several right ones.

    Attributes:
        queries: Query id -> anchor.
        corpus: Document id -> text.
        relevant: Query id -> ids of its right documents.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]

    @classmethod
    def read(cls, inputs: Iterable[str], columns: Columns | None = None, *, may_lack: bool = False) -> RetrievalSet:
        """Read held-out pairs from the same files as ``gistcache index`` takes; arguments as for ``read_pairs``.

        Raises:
            InputError: There is no usable pair, or a named column is in no file.
        """
        pairs = [row for row in read_pairs(inputs, columns or Columns(), may_lack=may_lack) if isinstance(row, Pair)]
        if not pairs:
            raise InputError(
                "The held-out files hold no pair", where=", ".join(inputs), fix="give files that are not empty"
            )
        queries: dict[str, str] = {}
        documents: dict[str, str] = {}
        relevant: dict[str, set[str]] = {}
        for pair in pairs:
            query = queries.setdefault(pair.anchor, f"q{len(queries)}")
            for text in (pair.positive, *pair.negatives):
                documents.setdefault(text, f"d{len(documents)}")
            relevant.setdefault(query, set()).add(documents[pair.positive])
        return cls(
            {key: text for text, key in queries.items()}, {key: text for text, key in documents.items()}, relevant
        )

    def fingerprint(self) -> str:
        """SHA-256 that changes with any text or any right answer."""
        digest = hashlib.sha256()
        for table in (self.queries, self.corpus):
            for key, text in table.items():
                digest.update(f"{key}\0{text}\0".encode())
        for key, right in self.relevant.items():
            digest.update(f"{key}\0{sorted(right)}\0".encode())
        return digest.hexdigest()

    def evaluator(self, batch_size: int = 32) -> object:
        """Sentence-transformers' evaluator of this set, by cosine similarity."""
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
        from sentence_transformers.util import cos_sim

        return InformationRetrievalEvaluator(
            self.queries,
            self.corpus,
            self.relevant,
            mrr_at_k=[10],
            ndcg_at_k=[10],
            accuracy_at_k=[1],
            precision_recall_at_k=[10],
            map_at_k=[10],
            batch_size=batch_size,
            show_progress_bar=shows_bars(),
            write_csv=False,
            score_functions={"cosine": cos_sim},
        )

    def evaluate(self, model: Embedder) -> dict[str, float]:
        """nDCG@10, MRR@10 and recall@10 of a model, each from 0 to 1."""
        with OneDNNLinear():
            results = self.evaluator()(model)  # type: ignore[operator]
        return {name: float(results[f"cosine_{name}"]) for name in METRICS}


def evaluate_sts(model: SentenceTransformer, path: str) -> dict[str, float]:
    """Spearman correlation of cosine similarity with the scores of a file.

    Args:
        model: The model.
        path: CSV, TSV, JSONL or Parquet with columns ``sentence1``, ``sentence2``, ``score``; a CSV of three columns
            may come without a header.

    Raises:
        InputError: The file has no such rows.
    """
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    first, second, scores = _scored_rows(path)
    evaluator = EmbeddingSimilarityEvaluator(first, second, scores, similarity_fn_names=["cosine"], write_csv=False)
    with OneDNNLinear():
        return {"spearman": float(evaluator(model)["spearman_cosine"])}


def _scored_rows(path: str) -> tuple[list[str], list[str], list[float]]:
    try:
        rows = [row for source in find_sources([path]) for row in _cells(source)]
    except (csv.Error, OSError, EOFError) as error:
        raise unreadable(path, error) from error
    try:
        scored = [(str(a), str(b), float(c)) for a, b, c in rows if a and b]
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


def _cells(source: Source) -> list[tuple[Any, Any, Any]]:
    """Sentence, sentence, score of every row; a delimited file may come without a header."""
    if source.format in ("csv", "tsv"):
        csv.field_size_limit(MAX_LINE_BYTES)
        with io.TextIOWrapper(source.open(), encoding="utf-8-sig", errors="replace", newline="") as file:  # type: ignore[arg-type]
            rows = [cells for cells in csv.reader(file, delimiter="\t" if source.format == "tsv" else ",") if cells]
        columns = [rows[0].index(name) for name in STS_COLUMNS] if rows and set(STS_COLUMNS) <= set(rows[0]) else None
        width = max(columns or [2]) + 1
        kept = [cells for cells in rows[1 if columns else 0 :] if len(cells) >= width]
        return [tuple(cells[column] for column in columns or (0, 1, 2)) for cells in kept]  # type: ignore[misc]
    fields = [row for _, row in read_rows(source) if isinstance(row, dict)]
    return [tuple(row.get(name) for name in STS_COLUMNS) for row in fields]  # type: ignore[misc]
