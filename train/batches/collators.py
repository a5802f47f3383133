"""From pair ids to the columns of a batch: which texts they are, and the student's features of them."""

from __future__ import annotations

from dataclasses import dataclass
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
        index: The guide index that names texts and pairs.
        negatives: How many columns of the pairs' own negatives there are.
        hard_negatives: The hard negatives, or None.
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
        """Begin a collated batch, and look up its texts.

        Args:
            labels: (B,) pair ids.

        Returns:
            The batch: ``label``, and with hard negatives a ``GuideBatch``, which the trainer hands to the loss among
            the anchors' features. And text ids (B,) of each column; a missing negative has the pair's positive, which
            the loss masks.
        """
        ids = self.index.pairs(labels, self.negatives)
        batch: dict[str, Any] = {"label": torch.from_numpy(labels)}
        if self.hard_negatives:
            hard, _ = self.hard_negatives.draw(labels)
            ids = ids._replace(negatives=np.concatenate([ids.negatives, hard], axis=1))
            batch[f"anchor_{GUIDE_BATCH}"] = GuideBatch(torch.from_numpy(hard))
        return batch, ids.columns()


@dataclass(kw_only=True)
class CachedTokens(SentenceTransformerDataCollator):
    """Reads a batch's tokens from the token cache by the rows' labels (pair ids)."""

    tokens: TokenCache
    columns: BatchColumns

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows with a label -> the features of every column, named as the trainer expects them."""
        batch, columns = self.columns.of(_labels(features))
        for column, ids in columns.items():
            tokens = self.tokens.features(ids, "query" if column == "anchor" else "document")
            batch |= {f"{column}_{name}": value for name, value in tokens.items()}
        return batch


@dataclass(kw_only=True)
class HardNegativeTexts(SentenceTransformerDataCollator):
    """Adds the texts of hard negatives to a batch's rows before they are tokenised, for students without a cache."""

    texts: Texts
    columns: BatchColumns

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows with texts and label -> the features of every column, named as the trainer expects them."""
        batch, columns = self.columns.of(_labels(features))
        added = {name: self.texts.take(ids).to_pylist() for name, ids in columns.items() if name not in features[0]}
        rows = [row | {name: texts[k] for name, texts in added.items()} for k, row in enumerate(features)]
        return super().__call__(rows) | batch


def _labels(features: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["label"] for row in features], dtype=np.int64)
