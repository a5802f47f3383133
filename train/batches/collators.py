"""From pair ids to the columns of a batch: which texts they are, and the student's features of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ..loss.guide_lookup import GuideBatch
from .hard_negatives import HardNegatives
from .token_cache import TokenCache

# The trainer hands what is named anchor_* on with the anchors' features.
GUIDE_BATCH = "anchor_guide_batch"


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

    def of(self, labels: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, GuideBatch]]:
        """Look up the texts of a batch.

        Args:
            labels: (B,) pair ids.

        Returns:
            Text ids (B,) of each column, where a missing negative has the pair's positive, which the loss masks; and
            what the collated batch holds for the loss beside features and labels: nothing where no negatives are drawn.
        """
        ids = self.index.pairs(labels, self.negatives)
        if self.hard_negatives is None:
            return ids.columns(), {}
        hard, _ = self.hard_negatives.draw(labels)
        ids = ids._replace(negatives=np.concatenate([ids.negatives, hard], axis=1))
        return ids.columns(), {GUIDE_BATCH: GuideBatch(hard_negatives=torch.from_numpy(hard))}


@dataclass(kw_only=True)
class CachedTokens(SentenceTransformerDataCollator):
    """Reads a batch's tokens from the token cache by the rows' labels (pair ids)."""

    tokens: TokenCache
    columns: BatchColumns

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows with a label -> the features of every column, named as the trainer expects them."""
        labels = _labels(features)
        columns, for_loss = self.columns.of(labels)
        batch: dict[str, Any] = {"label": torch.from_numpy(labels)}
        for column, ids in columns.items():
            tokens = self.tokens.features(ids, "query" if column == "anchor" else "document")
            batch |= {f"{column}_{name}": value for name, value in tokens.items()}
        return batch | for_loss


@dataclass(kw_only=True)
class HardNegativeTexts(SentenceTransformerDataCollator):
    """Adds the texts of hard negatives to a batch's rows before they are tokenised, for students without a cache."""

    texts: Texts
    columns: BatchColumns

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows with texts and label -> the features of every column, named as the trainer expects them."""
        columns, for_loss = self.columns.of(_labels(features))
        added = {name: self.texts.take(ids).to_pylist() for name, ids in columns.items() if name not in features[0]}
        rows = [row | {name: texts[k] for name, texts in added.items()} for k, row in enumerate(features)]
        return super().__call__(rows) | for_loss


def _labels(features: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["label"] for row in features], dtype=np.int64)
