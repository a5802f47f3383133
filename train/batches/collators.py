"""From pair ids to the columns of a batch: which texts they are, and the student's features of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ..loss.guide_lookup import GUIDE_BATCH, GuideBatch
from .hard_negatives import HardNegatives
from .token_cache import TokenCache


@dataclass(frozen=True)
class BatchColumns:
    """The columns of a batch: anchor, positive, the pairs' own negatives, and this epoch's hard negatives.

    Attributes:
        negatives: How many columns of the pairs' own negatives there are.
    """

    index: GuideIndex
    negatives: int = 0
    hard_negatives: HardNegatives | None = None

    @property
    def names(self) -> list[str]:
        """Names of the text columns, in order."""
        hard = self.hard_negatives.settings.hard_negatives if self.hard_negatives else 0
        return ["anchor", "positive", *(f"negative_{k + 1}" for k in range(self.negatives + hard))]

    def of(self, labels: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Begin the collated batch of pair ids (B,), and look up its texts.

        Returns:
            ``label``, and with hard negatives a ``GuideBatch``, which the trainer hands to the loss among the anchors'
            features; and text ids (B,) of each column, where a missing negative is the pair's positive, see
            ``PairIds.columns``.
        """
        ids = self.index.pairs(labels, self.negatives)
        batch: dict[str, Any] = {"label": torch.from_numpy(labels)}
        if self.hard_negatives:
            hard, _ = self.hard_negatives.draw(labels)
            ids = ids._replace(negatives=np.concatenate([ids.negatives, hard], axis=1))
            batch[f"anchor_{GUIDE_BATCH}"] = GuideBatch(torch.from_numpy(hard))
        return batch, ids.columns()


@dataclass(kw_only=True)
class BatchCollator(SentenceTransformerDataCollator):
    """Collates rows by their labels (pair ids): tokens from the cache, or else texts that the base class tokenises.

    Attributes:
        columns: The columns of the batch.
        tokens: The token cache; None tokenises the rows' own texts, and those of hard negatives, which are read here.
    """

    columns: BatchColumns
    tokens: TokenCache | None = None

    @cached_property
    def _texts(self) -> Texts:
        return Texts(self.columns.index)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows -> the features of every column, named as the trainer expects them."""
        batch, columns = self.columns.of(np.array([row["label"] for row in features], dtype=np.int64))
        if self.tokens is None:
            added = {
                name: self._texts.take(ids).to_pylist() for name, ids in columns.items() if name not in features[0]
            }
            rows = [row | {name: texts[k] for name, texts in added.items()} for k, row in enumerate(features)]
            return super().__call__(rows) | batch
        for column, ids in columns.items():
            tokens = self.tokens.features(ids, "query" if column == "anchor" else "document")
            batch |= {f"{column}_{name}": value for name, value in tokens.items()}
        return batch
