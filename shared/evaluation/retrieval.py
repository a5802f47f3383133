"""Retrieval on held-out pairs, measured by sentence-transformers' own evaluator."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.columns import Columns
from ..data.pairs import Reject, read_pairs
from ..data.readers import Inputs
from ..errors import InputError
from ..models.onednn import OneDNNLinear
from ..progress import shows_bars
from ..types import METRICS

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator


@dataclass(frozen=True)
class RetrievalSet:
    """Held-out pairs as a retrieval task: each unique anchor against every unique positive and negative.

    Texts by id, and the ids of each query's relevant documents. Equal texts are one document, so a duplicate of a
    relevant document is relevant.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]

    @classmethod
    def read(cls, inputs: Inputs, columns: Columns | None = None, *, may_lack: bool = False) -> RetrievalSet:
        """Read held-out pairs; arguments and errors as for ``read_pairs``, and InputError where there is no pair."""
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
        texts, corpus = ({key: text for text, key in table.items()} for table in (queries, documents))
        return cls(texts, corpus, relevant)

    def fingerprint(self) -> str:
        """SHA-256 that changes with any text and with any relevant document."""
        relevant = {query: sorted(documents) for query, documents in self.relevant.items()}
        return hashlib.sha256(json.dumps([self.queries, self.corpus, relevant]).encode()).hexdigest()

    def evaluator(self) -> InformationRetrievalEvaluator:
        """Sentence-transformers' evaluator of this set, by cosine similarity."""
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
        from sentence_transformers.util import cos_sim

        return InformationRetrievalEvaluator(
            self.queries,
            self.corpus,
            self.relevant,
            accuracy_at_k=[1],
            precision_recall_at_k=[10],
            map_at_k=[10],
            show_progress_bar=shows_bars(),
            write_csv=False,
            score_functions={"cosine": cos_sim},
        )

    def evaluate(self, model: Any) -> dict[str, float]:  # noqa: ANN401
        """nDCG@10, MRR@10 and recall@10, each from 0 to 1, of whatever embeds texts as a SentenceTransformer does."""
        with OneDNNLinear():
            results = self.evaluator()(model)
        return {name: float(results[f"cosine_{name}"]) for name in METRICS}
