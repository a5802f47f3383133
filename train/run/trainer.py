"""A SentenceTransformerTrainer put together from index, student, loss and batch plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.util.distributed import get_world_size
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ...shared.errors import SettingsError
from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.hf_dataset import pair_rows
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.guide_index.texts import Texts
from ...shared.models.device import pick_device
from ...shared.progress import console
from ...shared.types import PRIMARY_METRIC, Role
from ..batches.collators import BatchColumns, CachedTokens, HardNegativeTexts
from ..batches.consistency import consistent_pairs, write_pairs
from ..batches.hard_negatives import HardNegatives
from ..batches.sampler import PlannedBatches
from ..batches.token_cache import TokenCache
from ..distributed import is_main_process, main_process_first
from ..loss.guided_loss import GuidedContrastiveLoss
from ..loss.statistics import MaskStatistics
from ..settings import LossSettings, TrainSettings
from ..student.adapters import load_adapters
from ..student.students import matryoshka_dims
from .model_card import SAMPLE, describe_data
from .output_folder import CHECKPOINTS

FEW_NEGATIVES = "few_negatives.parquet"


def checkpoint_folder(settings: TrainSettings) -> Path:
    """Where the trainer keeps its checkpoints."""
    return settings.out / CHECKPOINTS


def build_trainer(
    settings: TrainSettings,
    indexes: Sequence[GuideIndex],
    student: SentenceTransformer,
    held_out: RetrievalSet | None,
) -> tuple[SentenceTransformerTrainer, GuidedContrastiveLoss]:
    """The trainer and its loss, ready to run."""
    if settings.batch_size % get_world_size():
        raise SettingsError(
            f"{settings.batch_size} pairs cannot be shared out among {get_world_size()} processes",
            where="--batch-size",
            fix=f"give a multiple of {get_world_size()}",
        )
    index = indexes[0]
    loss = _loss(settings, index, student)
    labels = consistent_pairs(index, settings.keep_positive_rank, settings.out)
    columns = _columns(settings, loss, labels)
    query, document = (student.prompts[role] or "" for role in ("query", "document"))
    prompts = {name: query if name == "anchor" else document for name in columns.names} if query or document else None
    collator = _collator(settings, student, columns, {"query": query, "document": document}, prompts)
    tokens_are_there = isinstance(collator, CachedTokens)
    own = columns.negatives
    rows = pair_rows(index, labels[:SAMPLE], own) if tokens_are_there else _all_rows(index, labels, own)
    trainer = StudentTrainer(
        loss.statistics,
        adapted=bool(settings.lora_rank),
        model=student,
        args=_arguments(settings, PlannedBatches.of(index, own, hardness=settings.hardness), prompts),
        train_dataset=rows,
        data_collator=collator,
        loss=_at_each_dimension(loss, student, settings),
        evaluator=held_out.evaluator() if held_out and settings.eval_steps else None,  # type: ignore[arg-type]
        callbacks=[_TellEpoch(columns.hard_negatives)] if columns.hard_negatives else None,
    )
    trainer.remove_callback(PrinterCallback)  # see step_display.py
    describe_data(student, rows, len(labels), trainer.loss)
    if tokens_are_there:  # the card has been told of the first texts; from here on, pair ids are enough
        trainer.train_dataset = Dataset.from_dict({"label": labels})
    return trainer, loss


def _all_rows(index: GuideIndex, labels: np.ndarray, negatives: int) -> Dataset:
    """The pairs with their texts, which a student is to tokenise batch by batch."""
    with main_process_first():
        dataset = index.to_dataset(negatives)
    return dataset if len(labels) == len(dataset) else dataset.select(labels)


class StudentTrainer(SentenceTransformerTrainer):
    """Logs the statistics of the mask beside the loss, and loads a checkpoint's adapters into the existing student.

    The library would load an adapted student's base model anew, by name and with all of its layers.
    """

    def __init__(self, statistics: MaskStatistics, *, adapted: bool, **given: Any) -> None:  # noqa: ANN401 (the library's own)
        super().__init__(**given)
        self.statistics, self.adapted = statistics, adapted

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand a report on to log history and loggers."""
        super().log(logs | self.statistics.recent_means() if "loss" in logs else logs, start_time)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        if self.adapted:
            load_adapters(self.model, Path(checkpoint_path))  # type: ignore[arg-type]
        else:
            super()._load_from_checkpoint(checkpoint_path)


class _TellEpoch(TrainerCallback):
    """Hard negatives are drawn anew each epoch."""

    def __init__(self, hard: HardNegatives) -> None:
        self.hard = hard

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.hard.epoch = int(state.epoch or 0)


def _loss(settings: TrainSettings, index: GuideIndex, student: SentenceTransformer) -> GuidedContrastiveLoss:
    return GuidedContrastiveLoss(
        student,
        index,
        settings.objective,
        reranker_scores=RerankerScores.open(settings.rescored, index) if settings.rescored else None,
        mini_batch_num_tokens=settings.mini_batch_num_tokens,
    )


def _at_each_dimension(
    loss: GuidedContrastiveLoss, student: SentenceTransformer, settings: TrainSettings
) -> GuidedContrastiveLoss | MatryoshkaLoss:
    """The loss as it is; with --matryoshka, its sum over the dimensions."""
    dims = matryoshka_dims(student, settings.matryoshka)
    return MatryoshkaLoss(student, loss, dims) if dims else loss


def _columns(settings: TrainSettings, loss: GuidedContrastiveLoss, labels: np.ndarray) -> BatchColumns:
    """The batch's columns; hard negatives are chosen here, by the loss's own judge."""
    index, objective = loss.index, settings.objective
    own = index.max_negatives if objective.negatives is None else objective.negatives
    if own > index.max_negatives:
        raise SettingsError(
            f"No pair of the index has more than {index.max_negatives} negatives",
            where=f"--negatives {own}",
            fix=f"give {index.max_negatives} or less, or --hard-negatives",
        )
    if not objective.mining.hard_negatives:
        _refuse_no_negatives(objective, own)
        return BatchColumns(index, own)
    hard = HardNegatives(index, objective.mining, loss.judge, settings.seed, loss.reranker)
    _refuse_no_negatives(objective, own or int(hard.counts[labels].max()))
    console.print(hard.summary(labels), highlight=False)
    if len(lacking := hard.lacking(labels)) and is_main_process():
        write_pairs(index, lacking, {"negatives_found": hard.counts[lacking]}, settings.out / FEW_NEGATIVES)
        console.print(f"listed in {settings.out / FEW_NEGATIVES}", highlight=False)
    return BatchColumns(index, own, hard)


def _refuse_no_negatives(objective: LossSettings, most: int) -> None:
    if objective.terms.margin_mse_weight and not most:
        raise SettingsError(
            "MarginMSE learns from negatives of a pair, and there are none",
            where="--margin-mse-weight",
            fix="add --hard-negatives 2 and a judge that lets some pass, or build the index from pairs with negatives",
        )


def _collator(
    settings: TrainSettings,
    student: SentenceTransformer,
    columns: BatchColumns,
    by_role: dict[Role, str],
    prompts: dict[str, str] | None,
) -> CachedTokens | HardNegativeTexts | None:
    """None where the trainer's own will do."""
    with main_process_first():
        tokens = TokenCache.of(columns.index, student, by_role) if settings.token_cache else None
    if tokens:
        return CachedTokens(preprocess_fn=student.preprocess, tokens=tokens, columns=columns)
    if columns.hard_negatives is None:
        return None
    texts = Texts(columns.index)
    return HardNegativeTexts(preprocess_fn=student.preprocess, prompts=prompts, texts=texts, columns=columns)


def _arguments(
    settings: TrainSettings,
    batch_sampler: Callable[..., PlannedBatches],
    prompts: dict[str, str] | None,
) -> SentenceTransformerTrainingArguments:
    saving = settings.save_steps or settings.eval_steps
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoint_folder(settings)),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        # Of all processes together, so that the plan is the same for any number of them; each takes its share.
        per_device_train_batch_size=settings.batch_size,
        accelerator_config={"split_batches": True},
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
        load_best_model_at_end=bool(settings.eval_steps),
        metric_for_best_model=f"eval_cosine_{PRIMARY_METRIC}" if settings.eval_steps else None,
        greater_is_better=True if settings.eval_steps else None,
        logging_steps=settings.logging_steps,
        report_to=list(settings.report_to) or "none",
        seed=settings.seed,
        dataloader_drop_last=True,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        prompts=prompts,
        batch_sampler=batch_sampler,
    )
    if arguments.n_gpu > 1:  # the trainer would multiply the batch by it; several GPUs are several processes here
        arguments._n_gpu = 1
    return arguments


def refuse_unknown_loggers(names: Sequence[str]) -> None:
    """Raise SettingsError where a logger is none of the trainer's, or cannot be loaded."""
    if unknown := set(names) - {*INTEGRATION_TO_CALLBACK, "all", "none"}:
        raise SettingsError(
            f"There is no logger {sorted(unknown)[0]!r}",
            where="--report-to",
            fix=f"give one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}",
        )
    for name in sorted(set(names) - {"all", "none"}):
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"{name} is not installed, or not whole: {error}",
                where=f"--report-to {name}",
                fix="install what is missing, or leave the logger out",
            ) from error
