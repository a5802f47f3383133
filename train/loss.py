"""Guided contrastive loss: InfoNCE over the cells that the guide, read from an index, lets stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shared.errors import SettingsError
from ..shared.features import Features
from ..shared.index import GuideIndex
from .forward import embed_columns
from .gradients import GradientCache, in_row_slices
from .judges import Judge, JudgeName, MarginStrategy, make_judge
from .lookup import BatchGuide
from .mask import (
    Blocks,
    PairVectors,
    same_text,
    self_cells,
    similarities,
)
from .ranks import gather, is_first, sum_of_all

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Cells of the score matrix that are held at once: 16 MiB in float32, and a few copies of it.
SLICE_CELLS = 2**22


def contrastive_loss(logits: Tensor, leaves: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the target cell among the cells that stay, summed over rows.

    Args:
        logits: (R, C) similarities over temperature.
        leaves: (R, C) bool; the target cell always stays.
        targets: (R,) column of each row's positive.
    """
    leaves = leaves.scatter(1, targets[:, None], False)
    return F.cross_entropy(logits.masked_fill(leaves, -torch.inf), targets, reduction="sum")


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
        judge: ``positive`` (the paper's) or ``neighborhood``, see ``judges``.
        judge_threshold: Of the judge ``neighborhood``; None for the one that the index asks for.
        margin: How far below the judge's threshold a candidate leaves already.
        margin_strategy: ``absolute`` (``s - margin``) or ``relative`` (``s - abs(s) * margin``).
        contrast_anchors: Whether anchors are pushed apart from anchors.
        contrast_positives: Whether positives are pushed apart from positives.
        guided: False trains without the judge; the other two rules stay.
        known_positives: False lets texts that are known positives stay, as the public implementations do.
        mini_batch_num_tokens: Embed so many tokens at a time, twice, so that memory does not grow with the batch
            (gradient caching); None embeds the batch once.

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
        judge: JudgeName = "positive",
        judge_threshold: float | None = None,
        margin: float = 0.0,
        margin_strategy: MarginStrategy = "absolute",
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        guided: bool = True,
        known_positives: bool = True,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise SettingsError(f"The temperature is {temperature}", where="temperature", fix="give a number above 0")
        self.model = model
        self.index = index
        self.temperature = temperature
        self.margin, self.margin_strategy = margin, margin_strategy
        self.contrast_anchors, self.contrast_positives = contrast_anchors, contrast_positives
        self.known_positives = known_positives
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.judge: Judge | None = (
            make_judge(judge, index, margin, margin_strategy, judge_threshold) if guided else None
        )
        self.removed_cells = RemovedCells()

    @property
    def uses_gradient_cache(self) -> bool:
        """Whether texts are embedded again in the backward pass; ``MatryoshkaLoss`` asks."""
        return self.mini_batch_num_tokens is not None

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
        columns = list(sentence_features)
        if self.mini_batch_num_tokens is None or not torch.is_grad_enabled():
            return self.calculate_loss([[each] for each in embed_columns(self.model, columns)], labels)
        cache = GradientCache(self.model, columns, self.mini_batch_num_tokens)
        value = self.calculate_loss([[each] for each in cache.embeddings], labels, with_backward=True)
        return cache.attach(value)

    def calculate_loss(self, reps: list[list[Tensor]], labels: Tensor, *, with_backward: bool = False) -> Tensor:
        """The mean loss of a batch whose texts are embedded; named and formed as ``MatryoshkaLoss`` looks for it.

        In a run of several processes the rows are this process's, the candidates those of all.

        Args:
            reps: For each column its (rows, D) embeddings, in one or several pieces.
            labels: (B,) pair ids.
            with_backward: Whether to give the embeddings their gradients at once.
        """
        device = reps[0][0].device
        with torch.autocast(device.type, enabled=False):  # a score rounded to half precision would move a threshold
            own = [F.normalize(torch.cat(pieces).float(), dim=-1) for pieces in reps]
            embeddings, all_labels, first = gather(own, labels)
            negatives = torch.cat(embeddings[2:]) if embeddings[2:] else embeddings[0][:0]
            student = PairVectors(embeddings[0], embeddings[1], negatives)
            guide = BatchGuide.of(self.index, all_labels.cpu().numpy(), len(embeddings) - 2, device)
            pairs = len(labels)
            cells = 3 * len(all_labels) + len(negatives)
            value = in_row_slices(
                student,
                torch.arange(first, first + pairs, device=device),
                max(1, SLICE_CELLS // cells),
                lambda rows, *vectors: self._row_losses(rows, PairVectors(*vectors), guide) / pairs,
            )
        if with_backward:
            value.backward()
        return value.detach() if with_backward else value

    def _row_losses(self, rows: Tensor, student: PairVectors, guide: BatchGuide) -> Tensor:
        """The sum of the losses of some rows of a batch."""
        switches = {"contrast_anchors": self.contrast_anchors, "contrast_positives": self.contrast_positives}
        scores = similarities(student, rows, **switches)
        with torch.no_grad():
            leaves = self._leaving(rows, scores, guide, switches)
        return contrastive_loss(scores.joined() / self.temperature, leaves, rows)

    def _leaving(self, rows: Tensor, scores: Blocks, guide: BatchGuide, switches: dict[str, bool]) -> Tensor:
        """(R, C) cells that leave the loss."""
        leaves = self_cells(rows, scores).joined()
        leaves[:, leaves.shape[1] - len(guide.texts.negatives) :] |= guide.texts.negatives < 0
        if self.known_positives:
            leaves |= same_text(guide.texts, rows, scores).joined()
        if self.judge is not None:
            judged = self.judge.decide(guide.view, rows, **switches).joined()
            self.removed_cells.count(judged, leaves, rows)
            leaves |= judged
        return leaves

    def get_config_dict(self) -> dict[str, Any]:
        """Settings of the loss, for the model card."""
        return {
            "judge": self.judge.name if self.judge else None,
            "judge_threshold": getattr(self.judge, "threshold", None),
            "temperature": self.temperature,
            "margin": self.margin,
            "margin_strategy": self.margin_strategy,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
            "known_positives": self.known_positives,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
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
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts

    def start_from(self, counts: tuple[int, int]) -> None:
        """Go on counting from an earlier run's counts; the first process holds them for all."""
        self._counts = torch.tensor(counts if is_first() else (0, 0))

    def counts(self) -> tuple[int, int]:
        """Removed cells and candidate cells so far, of all processes; all of them have to ask."""
        removed, candidates = sum_of_all([0, 0] if self._counts is None else self._counts.tolist())
        return removed, candidates
