"""Retrieval on held-out pairs, measured by sentence-transformers' own evaluator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from ..data.columns import Columns
from ..data.pairs import Reject, read_pairs
from ..data.readers import Inputs
from ..errors import InputError
from ..models.onednn import OneDNNLinear
from ..progress import shows_bars
from ..types import METRICS


class Embedder(Protocol):
    """Embeds texts by role, as a SentenceTransformer does."""

    def encode_query(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as the evaluators call it)
        """Texts -> vectors."""
        ...

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Texts -> vectors."""
        ...


@dataclass(frozen=True)
class RetrievalSet:
    """Held-out pairs as a retrieval task: each unique anchor against every unique positive and negative.

    Documents with the same text are one document, so a duplicate of a relevant document is relevant; an anchor with
    several positives has several relevant documents.

    Attributes:
        queries: Query id -> anchor.
        corpus: Document id -> text.
        relevant: Query id -> ids of its relevant documents.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]

    @classmethod
    def read(cls, inputs: Inputs, columns: Columns | None = None, *, may_lack: bool = False) -> RetrievalSet:
        """Read held-out pairs from files or rows; arguments as for ``read_pairs``.

        Raises:
            InputError: There is no usable pair, or a named column is in no file.
        """
        queries: dict[str, str] = {}
        documents: dict[str, str] = {}
        relevant: dict[str, set[str]] = {}
        for pair in read_pairs(inputs, columns or Columns(), may_lack=may_lack):
            if isinstance(pair, Reject):
                continue
            query = queries.setdefault(pair.anchor, f"q{len(queries)}")
            for text in (pair.positive, *pair.negatives):
                documents.setdefault(text, f"d{len(documents)}")
            relevant.setdefault(query, set()).add(documents[pair.positive])
        if not queries:
            where = ", ".join(map(str, inputs)) if isinstance(inputs, (list, tuple)) else ""
            raise InputError("The held-out input has no pair", where=where, fix="give files or rows that hold pairs")
        return cls(
            {key: text for text, key in queries.items()}, {key: text for text, key in documents.items()}, relevant
        )

    def fingerprint(self) -> str:
        """SHA-256 that changes with any text and with any relevant document."""
        digest = hashlib.sha256()
        for table in (self.queries, self.corpus):
            for key, text in table.items():
                digest.update(f"{key}\0{text}\0".encode())
        for key, documents in self.relevant.items():
            digest.update(f"{key}\0{sorted(documents)}\0".encode())
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
