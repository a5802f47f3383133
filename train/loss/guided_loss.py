"""Guided contrastive loss: InfoNCE over the cells that the guide, read from an index, lets stay."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import CachedLossMixin, RandContext, has_static_embedding_input
from torch import Tensor, nn

from ...shared.candidates import Blocks, PairVectors, same_text, self_cells, similarities
from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.models.lengths import Features, is_padded_text, take_rows
from ...shared.models.load import public_name
from ...shared.types import MarginStrategy
from ..distributed import gather
from ..settings import DistillationSettings, LossSettings, with_fields
from ..student.forward import embed, embed_columns, longest_first
from .distillation import score_terms
from .guide_lookup import BatchGuide, Guides
from .guide_map import fitted_map
from .judges import Judge, make_judge
from .panel import Vote, agreed, score_spread
from .reranker_judge import Reranked
from .rescored import Rescored
from .sliced_backward import in_row_slices
from .statistics import MaskStatistics

# Candidates of the score matrix that are held at once: 16 MiB in float32, and a few copies of it.
SLICE_CELLS = 2**22
STATE = "guide_map.safetensors"
# Settings that the model card tells under the names they have here.
CARD = ("judge_softness", "vote", "temperature", "margin", "margin_strategy", "contrast_anchors", "contrast_positives")
CARD += ("known_positives", "mini_batch_num_tokens")


def contrastive_loss(logits: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the target cell among the weighted cells, summed over rows.

    Args:
        logits: (R, C) similarities over temperature.
        weights: (R, C) log of how much each cell counts in the softmax: 0 stays, minus infinity leaves; the target
            cell always stays.
        targets: (R,) column of each row's positive.
    """
    return F.cross_entropy(logits + weights.scatter(1, targets[:, None], 0.0), targets, reduction="sum")


class GuidedContrastiveLoss(CachedLossMixin, nn.Module):
    """GISTEmbed's loss (Solatorio 2024, arXiv 2402.16829) with the guide's vectors read from a guide index.

    A row of the softmax holds the anchor against all positives, against all anchors, its positive against all
    positives, and the anchor against all negatives of the batch. A cell leaves when the judge calls it a false
    negative, when it is a text against itself, or when its text is the anchor's, the positive's or another known
    positive of the same anchor. Equals sentence-transformers' ``GISTEmbedLoss`` where no text stands twice.

    Args:
        model: The student.
        index: An open guide index; no guide is loaded. Several are several guides of the same texts: the first names
            the pairs.
        temperature: Similarities are divided by it; 0.01 is the paper's, `gistcache train` has 0.05.
        judge: ``positive`` (the paper's) or ``neighborhood``, see ``judges``.
        judge_threshold: Of the judge ``neighborhood``; None for the one that the index asks for.
        judge_quantile: Which one the index asks for, see ``judges.usual_relatedness``.
        judge_softness: 0 takes a cell out or leaves it whole. Above 0 its logit is lowered by the log of how likely it
            is a true negative, ``sigmoid(-excess / softness)``, with the judge's distance above its threshold.
        margin: How far below the judge's threshold a candidate leaves already.
        margin_strategy: ``absolute`` (``s - margin``) or ``relative`` (``s - abs(s) * margin``).
        rescored: Scores of a reranker for the (first) index: for an anchor and a document that it has read, its say
            replaces the judge's, with the same margin on its own scale.
        vote: How several guides agree: a cell leaves by ``any``, ``all``, or the ``mean`` of standardised scores.
        terms: Weights of the terms that learn from the (first) guide's scores themselves; default: none.
        contrast_anchors: Whether anchors are pushed apart from anchors.
        contrast_positives: Whether positives are pushed apart from positives.
        guided: False trains without the judge; the other two rules stay.
        known_positives: False lets texts that are known positives stay, as the public implementations do.
        mini_batch_num_tokens: Embed so many tokens at a time, twice, so that memory does not grow with the batch
            (gradient caching; Gao et al. 2021, arXiv 2101.06983); None embeds the batch once, as does a static student.

    Inputs:
        Columns anchor, positive, any number of negatives, and ``label``: the pair id, as ``index.to_dataset()`` has
        them.

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
        reranker_scores: Rescored | None = None,
        mini_batch_num_tokens: int | None = None,
        known_positives: bool = True,
        **overrides: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        settings = with_fields(settings or LossSettings(), **overrides)
        rescored, terms, guided = reranker_scores, settings.terms, settings.loss == "guided"
        judge, judge_threshold, judge_quantile = settings.judge, settings.judge_threshold, settings.judge_quantile
        temperature, margin, margin_strategy = settings.temperature, settings.margin, settings.margin_strategy
        contrast_anchors, contrast_positives = settings.contrast_anchors, settings.contrast_positives
        judge_softness, vote = 0.0, "mean"
        self.model = model
        self.guides = Guides([index], rescored)
        self.reranked = Reranked(rescored, margin, margin_strategy) if rescored else None
        self.temperature = temperature
        self.margin = margin
        self.margin_strategy: MarginStrategy = margin_strategy
        self.contrast_anchors, self.contrast_positives = contrast_anchors, contrast_positives
        self.known_positives = known_positives
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.uses_gradient_cache = mini_batch_num_tokens is not None and not has_static_embedding_input(model)
        self.judge_softness, self.terms = judge_softness, terms or DistillationSettings()
        self.vote: Vote = vote
        self.judges: list[Judge] = [
            make_judge(judge, each, margin, margin_strategy, judge_threshold, judge_quantile)
            for each in self.guides.indexes
            if guided
        ]
        self._spreads = [score_spread(each) for each in self.guides.indexes] if len(self.judges) > 1 else [1.0]
        self.guide_map = fitted_map(model, self.guides.indexes[0]) if self.terms.regression_weight else None
        self.cells = MaskStatistics()

    def save_state(self, checkpoint: Path) -> None:
        """Write the loss's own weights, where it has any, into a checkpoint's folder."""
        if self.guide_map is not None:
            save_file(dict(self.guide_map.state_dict()), checkpoint / STATE)

    def load_state(self, checkpoint: Path) -> None:
        """Take the loss's own weights from a checkpoint's folder."""
        if self.guide_map is not None:
            self.guide_map.load_state_dict(load_file(checkpoint / STATE))

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
        if not (self.uses_gradient_cache and torch.is_grad_enabled()):
            return self.calculate_loss([[each] for each in embed_columns(self.model, columns)], labels)
        columns, places = zip(*map(longest_first, columns), strict=True)
        return self.forward_cached(columns, (labels, places))  # type: ignore[arg-type]  (handed on as they are)

    def embed_minibatch(
        self,
        sentence_feature: Features,
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Embed some rows of a column, longest first; the mixin asks for it, without a graph and then with one."""
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
        labels: Any = None,  # noqa: ANN401
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """The mean loss of a batch whose texts are embedded; named and formed as ``MatryoshkaLoss`` looks for it.

        In a run of several processes the rows are this process's, the candidates those of all.

        Args:
            reps: For each column its (rows, D) embeddings, in one or several pieces.
            labels: (B,) pair ids; or these, and for each column the places of its rows.
            with_backward: Whether to give the embeddings their gradients at once.
        """
        device = reps[0][0].device
        labels, places = labels if isinstance(labels, tuple) else (labels, [slice(None)] * len(reps))
        with torch.autocast(device.type, enabled=False):  # a score rounded to half precision would move a threshold
            embedded = [torch.cat(pieces)[place] for pieces, place in zip(reps, places, strict=True)]
            own = [F.normalize(each.float(), dim=-1) for each in embedded]
            embeddings, all_labels, first = gather(own, labels)
            negatives = torch.cat(embeddings[2:]) if embeddings[2:] else embeddings[0][:0]
            student = PairVectors(embeddings[0], embeddings[1], negatives)
            guide = self.guides.look_up(all_labels.cpu().numpy(), len(embeddings) - 2, device)
            pairs = len(labels)
            cells = 3 * len(all_labels) + len(negatives)
            linear = [self.guide_map.weight] if self.guide_map else []
            value = in_row_slices(
                [*student, *linear],
                torch.arange(first, first + pairs, device=device),
                max(1, SLICE_CELLS // cells),
                lambda rows, *inputs: self._row_losses(rows, PairVectors(*inputs[:3]), guide, *inputs[3:]) / pairs,
            )
        if with_backward:
            value.backward()
        return value.detach() if with_backward else value

    def _row_losses(self, rows: Tensor, student: PairVectors, guide: BatchGuide, *linear: Tensor) -> Tensor:
        """The sum of the losses of some rows of a batch."""
        switches = {"contrast_anchors": self.contrast_anchors, "contrast_positives": self.contrast_positives}
        scores = similarities(student, rows, **switches)
        with torch.no_grad():
            own, again = self._own_cells(rows, scores, guide), guide.texts.again
            weights = self._weights(rows, own._replace(an=own.an | again).joined(), guide, switches)
        value = contrastive_loss(scores.joined() / self.temperature, weights, rows)
        return value + score_terms(self.terms, rows, student, guide.views[0].vectors, scores, own, again, *linear)

    def _own_cells(self, rows: Tensor, scores: Blocks, guide: BatchGuide) -> Blocks:
        """Candidates that leave whatever the guide says: a text against itself, missing negatives, known positives."""
        own = self_cells(rows, scores)
        own = own._replace(an=own.an | (guide.texts.negatives < 0))
        return own.or_(same_text(guide.texts, rows, scores)) if self.known_positives else own

    def _weights(self, rows: Tensor, own: Tensor, guide: BatchGuide, switches: dict[str, bool]) -> Tensor:
        """(R, C) log of how much each cell counts."""
        weights = torch.zeros(own.shape, device=own.device).masked_fill(own, -torch.inf)
        if not self.judges:
            return weights
        by_guide = zip(self.judges, guide.views, strict=True)
        excesses = [judge.excess(view, rows, **switches) for judge, view in by_guide]
        agreement = agreed(excesses, self._spreads, self.vote)
        if self.reranked and guide.scored:
            agreement = self.reranked.overrule(agreement, guide.scored, rows)
        excess = agreement.joined()
        if self.judge_softness:
            weights = weights + F.logsigmoid(-excess / self.judge_softness)
        else:
            weights = weights.masked_fill(excess > 0, -torch.inf)
        self.cells.count(excess > 0, weights, own, self.judges[0].thresholds(guide.views[0], rows), rows)
        return weights

    def get_config_dict(self) -> dict[str, Any]:
        """Settings of the loss, for the model card."""
        return {
            "judge": self.judges[0].name if self.judges else None,
            "judge_threshold": getattr(self.judges[0], "threshold", None) if self.judges else None,
            "guides": [public_name(index.manifest.request.guide["name"]) for index in self.guides.indexes],
            "reranker": public_name(self.reranked.rescored.folder.request["reranker"]["name"])
            if self.reranked
            else None,
            **{
                name: value
                for name, value in asdict(self.terms).items()
                if not name.startswith("kl_") or self.terms.kl_weight
            },
            **{name: getattr(self, name) for name in CARD},
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
