"""Guided contrastive loss: InfoNCE over the cells that the guide, read from an index, lets stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shared.errors import SettingsError
from ..shared.features import Features
from ..shared.index import GuideIndex
from .forward import embed_columns
from .mask import (
    BatchTexts,
    Judge,
    MarginStrategy,
    PairVectors,
    positive_judge,
    same_text,
    self_cells,
    similarities,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def contrastive_loss(logits: Tensor, leaves: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the target cell among the cells that stay.

    Args:
        logits: (R, C) similarities over temperature.
        leaves: (R, C) bool; the target cell always stays.
        targets: (R,) column of each row's positive.
    """
    leaves = leaves.scatter(1, targets[:, None], False)
    return F.cross_entropy(logits.masked_fill(leaves, -torch.inf), targets)


class GuidedContrastiveLoss(nn.Module):
    """GISTEmbed's loss (Solatorio 2024, arXiv 2402.16829) with the guide's vectors read from a guide index.

    A row of the softmax holds the anchor against all positives, against all anchors, its positive against all
    positives, and the anchor against all negatives of the batch. A cell leaves when the judge calls it a false
    negative, when it is a text against itself, or when its text is the anchor's, the positive's or another known
    positive of the same anchor. Equals sentence-transformers' ``GISTEmbedLoss`` where no text stands twice.

    Args:
        model: The student.
        index: An open guide index; no guide is loaded.
        temperature: Similarities are divided by it.
        margin: How far below the positive's guide score the threshold lies.
        margin_strategy: ``absolute`` (``s - margin``) or ``relative`` (``s - abs(s) * margin``).
        contrast_anchors: Whether anchors are pushed apart from anchors.
        contrast_positives: Whether positives are pushed apart from positives.
        guided: False trains without the judge; the other two rules stay.
        known_positives: False lets texts that are known positives stay, as the public implementations do.

    Inputs:
        Columns anchor, positive, any number of negatives, and ``label``: the pair id, as ``index.to_dataset()`` has
        them.

    Example:
        >>> loss = GuidedContrastiveLoss(student, GuideIndex.open("guide-index"))  # doctest: +SKIP
        >>> trainer = SentenceTransformerTrainer(student, train_dataset=index.to_dataset(), loss=loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SentenceTransformer,
        index: GuideIndex,
        temperature: float = 0.01,
        margin: float = 0.0,
        margin_strategy: MarginStrategy = "absolute",
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        guided: bool = True,
        known_positives: bool = True,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise SettingsError(f"The temperature is {temperature}", where="temperature", fix="give a number above 0")
        if margin_strategy not in ("absolute", "relative"):
            raise SettingsError(f"There is no margin strategy {margin_strategy!r}", fix="give absolute or relative")
        self.model = model
        self.index = index
        self.temperature = temperature
        self.margin, self.margin_strategy = margin, margin_strategy
        self.contrast_anchors, self.contrast_positives = contrast_anchors, contrast_positives
        self.known_positives = known_positives
        self.judge: Judge | None = positive_judge(margin, margin_strategy) if guided else None
        self.removed_cells = RemovedCells()

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The mean loss of a batch.

        Args:
            sentence_features: Tokenised columns: anchors, positives, then K columns of negatives, B rows each.
            labels: (B,) pair ids.

        Raises:
            SettingsError: There are no labels, so that the guide's vectors cannot be found.
        """
        if labels is None:
            raise SettingsError(
                "The batch has no labels, which say where the guide's vectors are",
                where="the data set's `label` column",
                fix="train on index.to_dataset(), and keep its label column",
            )
        embeddings = [F.normalize(column.float(), dim=-1) for column in embed_columns(self.model, sentence_features)]
        student = PairVectors(embeddings[0], embeddings[1], _stacked(embeddings[2:], embeddings[0]))
        return self.from_embeddings(student, labels, negatives=len(embeddings) - 2)

    def from_embeddings(self, student: PairVectors, labels: Tensor, negatives: int) -> Tensor:
        """The mean loss of a batch whose texts are embedded.

        Args:
            student: Unit vectors of the student, float32; negatives column by column.
            labels: (B,) pair ids.
            negatives: K, negatives a pair.
        """
        device = student.anchors.device
        rows = torch.arange(len(labels), device=device)
        ids = self.index.pairs(labels.cpu().numpy(), negatives)
        texts = batch_texts(self.index, ids.anchors, ids.positives, ids.negatives, device)
        switches = {"contrast_anchors": self.contrast_anchors, "contrast_positives": self.contrast_positives}
        scores = similarities(student, rows, **switches)
        leaves = self_cells(rows, scores).joined()
        leaves[:, leaves.shape[1] - len(texts.negatives) :] |= texts.negatives < 0
        if self.known_positives:
            leaves |= same_text(texts, rows, scores).joined()
        if self.judge is not None:
            with torch.no_grad():
                guide = similarities(guide_vectors(self.index, ids, device), rows, **switches)
                judged = self.judge.decide(guide, rows).joined()
            self.removed_cells.count(judged, leaves, rows)
            leaves |= judged
        return contrastive_loss(scores.joined() / self.temperature, leaves, rows)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings of the loss, for the model card."""
        return {
            "judge": self.judge.name if self.judge else None,
            "temperature": self.temperature,
            "margin": self.margin,
            "margin_strategy": self.margin_strategy,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
            "known_positives": self.known_positives,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the paper."""
        return """
@misc{solatorio2024gistembed,
    title={GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
    author={Aivin V. Solatorio},
    year={2024},
    eprint={2402.16829},
    archivePrefix={arXiv},
    primaryClass={cs.LG}
}
"""


class RemovedCells:
    """Counts, over batches, the candidate cells there were and those the judge took out."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def count(self, judged: Tensor, already: Tensor, rows: Tensor) -> None:
        """Add a batch: cells that the other rules take out, and targets, are no candidates."""
        candidates = ~already
        candidates[torch.arange(len(rows), device=rows.device), rows] = False
        counts = torch.stack([(judged & candidates).sum(), candidates.sum()])
        self._counts = counts if self._counts is None else self._counts + counts

    def counts(self) -> tuple[int, int]:
        """Removed cells and candidate cells so far."""
        removed, candidates = self._counts.tolist() if self._counts is not None else (0, 0)
        return removed, candidates


def batch_texts(
    index: GuideIndex, anchors: np.ndarray, positives: np.ndarray, negatives: np.ndarray, device: torch.device
) -> BatchTexts:
    """Look up what equals what in a batch.

    Args:
        index: The guide index.
        anchors: (B,) text ids.
        positives: (B,) text ids.
        negatives: (B, K) text ids, -1 for none; laid out column by column, as the student's negatives are.
        device: Where the loss is computed.
    """
    content = index.content_ids
    flat = negatives.T.ravel()
    known, known_rows = index.known_positives(anchors)
    arrays = (
        content[anchors],
        content[positives],
        np.where(flat < 0, -1, content[np.maximum(flat, 0)]),
        known,
        known_rows,
    )
    return BatchTexts(*(torch.as_tensor(array, device=device) for array in arrays))


def guide_vectors(index: GuideIndex, ids: Any, device: torch.device) -> PairVectors:  # noqa: ANN401
    """Guide vectors of a batch's texts, float32; missing negatives get some other vector, their cells leave anyway."""

    def take(text_ids: np.ndarray) -> Tensor:
        return torch.as_tensor(index.vectors(text_ids), device=device).float()

    return PairVectors(take(ids.anchors), take(ids.positives), take(np.maximum(ids.negatives.T.ravel(), 0)))


def _stacked(columns: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(columns) if columns else like.new_zeros((0, like.shape[1]))
