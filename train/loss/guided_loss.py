"""Guided contrastive loss: InfoNCE over the candidates that the guide, read from an index, does not mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import CachedLossMixin, RandContext, has_static_embedding_input
from torch import Tensor, nn

from ...shared.candidates import PairVectors, same_text, similarities
from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.models.lengths import Features, is_padded_text, take_rows
from ...shared.models.locate import public_name
from ...shared.settings import with_fields
from ..distributed import gather
from ..settings import LossSettings
from ..student.forward import embed, embed_columns, longest_first
from .distillation import distillation_terms, fitted_map
from .guide_lookup import GUIDE_BATCH, IndexedBatch, look_up
from .judges import make_judge
from .reranker_judge import RerankerJudge, overrule
from .statistics import MaskStatistics

# Candidates whose scores are in memory at once: 16 MiB in float32, and a few copies of it.
SLICE_CANDIDATES = 2**22
MAP_FILE = "guide_map.safetensors"


class BatchLabels(NamedTuple):
    """What ``forward`` hands to ``calculate_loss`` beside the embeddings of a batch of B pairs."""

    ids: Tensor  # (B, 1 + H) int64: the pair id, then the text ids of the last H columns of negatives, -1 for none
    places: Sequence[Tensor | slice]  # what puts the embeddings of each column back in order


def contrastive_loss(logits: Tensor, masked: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of the target among the candidates that are not masked, summed over rows.

    Args:
        logits: (R, C) similarities over temperature.
        masked: (R, C) bool; what it says of targets is ignored.
        targets: (R,) int64 column of each row's positive.
    """
    masked = masked.scatter(1, targets[:, None], False)
    return F.cross_entropy(logits.masked_fill(masked, -torch.inf), targets, reduction="sum")


def in_row_slices(inputs: Sequence[Tensor], rows: Tensor, slice_rows: int, loss: Callable[..., Tensor]) -> Tensor:
    """Sum a loss over slices of rows, so that only the graph of one slice is in memory at a time.

    Args:
        inputs: Tensors that every row may depend on.
        rows: (R,) row numbers.
        slice_rows: Rows a slice.
        loss: ``loss(row numbers, *inputs)`` gives the sum of the loss over these rows, a scalar.

    Returns:
        A scalar whose backward pass gives every input its gradient, which is that of one pass over all rows.
    """
    if not torch.is_grad_enabled():
        return torch.stack([loss(chunk, *inputs) for chunk in rows.split(slice_rows)]).sum()
    leaves = [each.detach().requires_grad_() for each in inputs]
    total = torch.zeros((), device=inputs[0].device)
    for chunk in rows.split(slice_rows):
        value = loss(chunk, *leaves)
        value.backward()
        total += value.detach()
    # The gradients are computed: a sum of zeros hands each on to its input.
    for leaf, each in zip(leaves, inputs, strict=True):
        if leaf.grad is not None:
            total = total + (leaf.grad * (each - each.detach())).sum()
    return total


class GuidedContrastiveLoss(CachedLossMixin, nn.Module):
    """GISTEmbed's loss (Solatorio 2024, arXiv 2402.16829) with the guide's vectors read from a guide index.

    A row of the softmax compares the anchor with all positives, all anchors and all negatives of the batch, and its
    positive with all positives. A candidate is masked when the judge calls it a false negative, or when its text is the
    anchor's, the positive's or another known positive of the same anchor. The loss equals sentence-transformers'
    ``GISTEmbedLoss`` where no text is repeated.

    Args:
        model: The student.
        index: An open guide index; no guide is loaded.
        settings: Temperature, judge and all else, with the defaults of `gistcache train`.
        reranker_scores: Scores of a reranker for this index: of an anchor and a document that it has read, its
            judgement replaces the judge's, with the same margin on its own scale.
        mini_batch_num_tokens: Embed so many tokens at a time, twice, so that memory does not grow with the batch
            (gradient caching; Gao et al. 2021, arXiv 2101.06983); None embeds the batch once, as does a static student.
        known_positives: False treats all texts as different, as the public implementations do.
        overrides: Fields of the settings by keyword, those of nested settings by their own names.

    Inputs:
        Columns anchor, positive, any number of negatives, and ``label``: the pair id, as ``index.to_dataset()`` has
        them. A collator that adds hard negatives puts a ``GuideBatch`` among the anchor's features.

    Raises:
        SettingsError: A setting cannot be used, or a batch has no labels.
        TypeError: There is no setting of that name.

    Example:
        >>> loss = GuidedContrastiveLoss(student, GuideIndex.open("guide-index"))  # doctest: +SKIP
        >>> trainer = SentenceTransformerTrainer(student, train_dataset=index.to_dataset(), loss=loss)  # doctest: +SKIP
    """

    mini_batch_size = 0  # texts, which the mixin asks for; mini-batches are cut by tokens

    def __init__(
        self,
        model: SentenceTransformer,
        index: GuideIndex,
        settings: LossSettings | None = None,
        *,
        reranker_scores: RerankerScores | None = None,
        mini_batch_num_tokens: int | None = None,
        known_positives: bool = True,
        **overrides: Any,  # noqa: ANN401 (whatever type the field has)
    ) -> None:
        super().__init__()
        self.settings = settings = with_fields(settings or LossSettings(), **overrides)
        self.model, self.index, self.known_positives = model, index, known_positives
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.uses_gradient_cache = mini_batch_num_tokens is not None and not has_static_embedding_input(model)
        self.contrast = {name: getattr(settings, name) for name in ("contrast_anchors", "contrast_positives")}
        self.judge = make_judge(settings, index) if settings.loss == "guided" else None
        self.reranker = None
        if self.judge and reranker_scores:
            self.reranker = RerankerJudge(reranker_scores, settings.margin, settings.margin_strategy)
        self.guide_map = fitted_map(model, index) if settings.terms.regression_weight else None
        self.statistics = MaskStatistics()

    def save_state(self, checkpoint: Path) -> None:
        """Write the loss's own weights, if it has any, into a checkpoint's folder."""
        if self.guide_map is not None:
            save_file(dict(self.guide_map.state_dict()), checkpoint / MAP_FILE)

    def load_state(self, checkpoint: Path) -> None:
        """Read the loss's own weights from a checkpoint's folder."""
        if self.guide_map is not None:
            self.guide_map.load_state_dict(load_file(checkpoint / MAP_FILE))

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Compute the mean loss of a batch.

        Args:
            sentence_features: Tokenized columns: anchors, positives, then K columns of negatives, B rows each.
            labels: (B,) pair ids.
        """
        if labels is None:
            raise SettingsError(
                "The batch has no labels, which say where the guide's vectors are",
                where="the data set's `label` column",
                fix="train on index.to_dataset(), and keep its label column",
            )
        first, *others = sentence_features
        # Not popped in place: MatryoshkaLoss hands the same features in once for every dimension.
        columns = [{name: value for name, value in first.items() if name != GUIDE_BATCH}, *others]
        hard = [first[GUIDE_BATCH].hard_negatives.to(labels.device)] if GUIDE_BATCH in first else []
        batch = BatchLabels(torch.cat([labels[:, None], *hard], dim=1), [slice(None)] * len(columns))
        if not (self.uses_gradient_cache and torch.is_grad_enabled()):
            return self.calculate_loss([[each] for each in embed_columns(self.model, columns)], batch)
        columns, places = zip(*map(longest_first, columns), strict=True)
        return self.forward_cached(columns, batch._replace(places=places))  # type: ignore[arg-type]  (handed on as is)

    def embed_minibatch(
        self,
        sentence_feature: Features,
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Embed some rows of a column, longest first; the mixin calls it without a graph and then with one."""
        if not is_padded_text(sentence_feature):
            return super().embed_minibatch(sentence_feature, begin, end, with_grad, copy_random_state, random_state)
        width = int(sentence_feature["attention_mask"][begin].sum())
        piece = take_rows(sentence_feature, np.arange(begin, end), width)
        random = RandContext(*piece.values()) if copy_random_state else None
        with random_state or nullcontext(), torch.set_grad_enabled(with_grad):
            return embed(self.model, piece).float(), random

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        labels: Any = None,  # noqa: ANN401 (the mixin's signature)
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """Compute the mean loss of a batch whose texts are embedded; ``MatryoshkaLoss`` wraps a method of this name.

        In a run of several processes the rows are this process's, the candidates those of all.

        Args:
            reps: For each column its (rows, D) embeddings, in one or several pieces.
            labels: A ``BatchLabels``.
            with_backward: Whether to compute the gradients of the embeddings at once.
        """
        device = reps[0][0].device
        with torch.autocast(device.type, enabled=False):  # a score rounded to half precision would move a threshold
            ordered = [torch.cat(pieces)[place] for pieces, place in zip(reps, labels.places, strict=True)]
            columns, ids, first = gather([F.normalize(each.float(), dim=-1) for each in ordered], labels.ids)
            batch = self._look_up(ids, len(columns) - 2, device)
            student = PairVectors(columns[0], columns[1], torch.cat([columns[0][:0], *columns[2:]]))
            pairs, candidates = len(labels.ids), 3 * len(ids) + len(student.negatives)
            value = in_row_slices(
                [*student, *([self.guide_map.weight] if self.guide_map else [])],
                torch.arange(first, first + pairs, device=device),
                max(1, SLICE_CANDIDATES // candidates),
                lambda rows, *inputs: self._row_losses(rows, PairVectors(*inputs[:3]), batch, *inputs[3:]) / pairs,
            )
        if not with_backward:
            return value
        value.backward()
        return value.detach()

    def _look_up(self, ids: Tensor, negatives: int, device: torch.device) -> IndexedBatch:
        pair_ids, hard = np.split(ids.cpu().numpy(), [1], axis=1)
        batch = look_up(self.index, pair_ids[:, 0], hard, negatives - hard.shape[1], device, self.reranker)
        return batch if self.known_positives else replace(batch, texts=batch.texts.as_distinct())

    def _row_losses(self, rows: Tensor, student: PairVectors, batch: IndexedBatch, *linear: Tensor) -> Tensor:
        """Sum the losses of some rows of a batch."""
        terms, texts, guide = self.settings.terms, batch.texts, batch.guide.vectors
        scores = similarities(student, rows, **self.contrast)
        with torch.no_grad():
            excluded = same_text(texts, rows, scores)
            excluded = excluded._replace(an=excluded.an | (texts.negatives < 0))
            masked = excluded._replace(an=excluded.an | texts.repeated).joined()
            if self.judge:
                excess = self.judge.excess(batch.guide, rows, **self.contrast)
                if batch.reranked:
                    excess = overrule(excess, batch.reranked, rows)
                judged = excess.joined() > 0
                self.statistics.count(judged, masked, self.judge.thresholds(batch.guide, rows), rows)
                masked |= judged
        value = contrastive_loss(scores.joined() / self.settings.temperature, masked, rows)
        return value + distillation_terms(terms, rows, student, guide, scores, excluded, texts.repeated, *linear)

    def get_config_dict(self) -> dict[str, Any]:
        """List the settings of the loss for the model card."""
        settings = asdict(self.settings)
        terms, _ = settings.pop("terms"), settings.pop("mining")
        reranker = self.reranker and self.reranker.scores.request["reranker"]["name"]
        return {
            **settings,
            **terms,
            "judge_threshold": getattr(self.judge, "threshold", None),
            "guide": public_name(self.index.manifest.request.guide["name"]),
            "reranker": reranker and public_name(reranker),
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
    year={2024}, eprint={2402.16829}, archivePrefix={arXiv}, primaryClass={cs.LG}
}
"""
