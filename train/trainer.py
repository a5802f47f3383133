"""Stage 2: a SentenceTransformerTrainer put together from index, student, loss and batch plan, and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ..shared.clock import Clock, peak_memory_bytes
from ..shared.errors import SettingsError, StaleIndexError
from ..shared.evaluation import PRIMARY_METRIC, RetrievalSet
from ..shared.index import GuideIndex
from ..shared.models import pick_device, prompt_for, set_prompts
from ..shared.parts import write_json
from ..shared.progress import console
from .card import add_section
from .loss import GuidedContrastiveLoss
from .plan import PlannedBatches
from .settings import TrainSettings
from .students import load_student
from .tokens import TokenCache

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments


def train_student(settings: TrainSettings) -> dict[str, Any]:
    """Train one student; write the model, its card and ``metrics.json``; return the metrics.

    Raises:
        GistcacheError: Index, student, held-out pairs or settings cannot be used.
    """
    index = GuideIndex.open(settings.index)
    held_out = RetrievalSet.read(settings.eval_pairs) if settings.eval_pairs else None
    device = pick_device(settings.device)
    student = load_student(settings.student, layers=settings.layers, max_length=settings.max_length, device=device)
    set_prompts(student, settings.query_prompt, settings.document_prompt)
    clock = Clock()
    before = _evaluated(student, held_out, clock, "evaluate before")
    trainer, loss = build_trainer(settings, index, student, held_out)
    checkpoint = _checkpoint(settings)
    with clock.measure("train"):
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
    after = _evaluated(student, held_out, clock, "evaluate after")
    removed, candidates = loss.removed_cells.counts()
    metrics = {
        "retrieval": {"student before": before, "student after": after, "guide": _guide_figures(index, held_out)},
        "removed_share": removed / candidates if candidates else None,
        "training_loss": outcome.training_loss,
        "steps": trainer.state.global_step,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "seconds": clock.rounded(),
        "peak_memory_bytes": peak_memory_bytes(),
        "settings": settings.recorded(),
    }
    _save(settings, index, student, trainer, metrics)
    return metrics


def build_trainer(
    settings: TrainSettings, index: GuideIndex, student: SentenceTransformer, held_out: RetrievalSet | None
) -> tuple[SentenceTransformerTrainer, GuidedContrastiveLoss]:
    """The trainer and its loss, ready to run."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer

    objective = settings.objective
    dataset = index.to_dataset(objective.negatives)
    loss = GuidedContrastiveLoss(
        student,
        index,
        temperature=objective.temperature,
        margin=objective.margin,
        margin_strategy=objective.margin_strategy,
        contrast_anchors=objective.contrast_anchors,
        contrast_positives=objective.contrast_positives,
        guided=objective.loss == "guided",
        mini_batch_num_tokens=settings.mini_batch_num_tokens,
    )
    query = prompt_for(student, "query", settings.query_prompt)
    document = prompt_for(student, "document", settings.document_prompt)
    cache = TokenCache.of(index, student, {"query": query, "document": document}) if settings.token_cache else None
    texts = [name for name in dataset.column_names if name != "label"]
    prompts = {name: query if name == "anchor" else document for name in texts} if query or document else None
    trainer = SentenceTransformerTrainer(
        model=student,
        args=_arguments(settings, PlannedBatches.of(index, len(texts) - 2), prompts),
        train_dataset=dataset,
        data_collator=cache.collator(len(texts) - 2) if cache else None,
        loss=loss,
        evaluator=held_out.evaluator() if held_out and settings.eval_steps else None,  # type: ignore[arg-type]
        callbacks=[LogRemovedCells(loss)],
    )
    if cache:  # the card has been told of the texts; from here on, only the pair ids are needed
        trainer.train_dataset = Dataset.from_dict({"label": np.arange(len(index))})
    return trainer, loss


def _arguments(
    settings: TrainSettings,
    batch_sampler: Any,  # noqa: ANN401
    prompts: dict[str, str] | None,
) -> SentenceTransformerTrainingArguments:
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

    saving = settings.save_steps or settings.eval_steps
    return SentenceTransformerTrainingArguments(
        output_dir=str(settings.out / "checkpoints"),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        use_cpu=pick_device(settings.device) == "cpu",
        eval_strategy="steps" if settings.eval_steps else "no",
        eval_steps=settings.eval_steps,
        save_strategy="steps" if saving else "no",
        save_steps=saving or 500,
        save_total_limit=2,
        load_best_model_at_end=bool(settings.eval_steps),
        metric_for_best_model=f"eval_cosine_{PRIMARY_METRIC}" if settings.eval_steps else None,
        greater_is_better=True if settings.eval_steps else None,
        logging_steps=settings.logging_steps,
        report_to=list(settings.report_to) or "none",
        seed=settings.seed,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        prompts=prompts,
        batch_sampler=batch_sampler,
    )


class LogRemovedCells(TrainerCallback):
    """Puts the share of removed cells since the last report into the trainer's logs."""

    def __init__(self, loss: GuidedContrastiveLoss) -> None:
        self.loss = loss
        self.reported = (0, 0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ANN401, D102
        del args, control, kwargs
        removed, candidates = self.loss.removed_cells.counts()
        if logs is not None and "loss" in logs and candidates > self.reported[1]:
            logs["removed_share"] = share = round((removed - self.reported[0]) / (candidates - self.reported[1]), 5)
            state.log_history[-1]["removed_share"] = share  # the trainer has copied the logs there already
            self.reported = (removed, candidates)


def _checkpoint(settings: TrainSettings) -> str | None:
    folder = settings.out / "checkpoints"
    if not settings.resume:
        if folder.is_dir() and any(folder.glob("checkpoint-*")):
            raise StaleIndexError(
                "The folder holds checkpoints of an earlier run",
                where=str(folder),
                fix="give --resume to go on from them, another --out, or delete them",
            )
        return None
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last is None:
        raise SettingsError("There is no checkpoint to go on from", where=str(folder), fix="leave --resume out")
    return last


def _evaluated(
    student: SentenceTransformer, held_out: RetrievalSet | None, clock: Clock, name: str
) -> dict[str, float] | None:
    if held_out is None:
        return None
    with clock.measure(name), console.status(name):
        return held_out.evaluate(student)


def _guide_figures(index: GuideIndex, held_out: RetrievalSet | None) -> dict[str, float] | None:
    """What stage 1 measured of the guide, where it was on the same held-out pairs."""
    if held_out is None or index.manifest.request.settings.get("eval_pairs") != held_out.fingerprint():
        return None
    return index.manifest.measured.get("guide")


def _save(
    settings: TrainSettings,
    index: GuideIndex,
    student: SentenceTransformer,
    trainer: SentenceTransformerTrainer,
    metrics: dict[str, Any],
) -> None:
    student.save_pretrained(str(settings.out))
    add_section(settings.out / "README.md", index, metrics)
    summary = index.layout.summary
    if summary.is_file():
        metrics["index"] = json.loads(summary.read_text(encoding="utf-8"))
    metrics["log"] = trainer.state.log_history
    write_json(Path(settings.out) / "metrics.json", metrics)
