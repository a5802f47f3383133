"""The SentenceTransformerTrainer of a run, built from index, student, loss and batch plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.util.distributed import get_world_size
from transformers import PrinterCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...shared.errors import SettingsError
from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.hf_dataset import pair_rows
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.models.device import pick_device
from ...shared.progress import console
from ...shared.types import PRIMARY_METRIC, Role
from ..batches.collators import BatchCollator, BatchColumns
from ..batches.consistency import consistent_pairs, write_pairs
from ..batches.hard_negatives import HardNegatives
from ..batches.sampler import PlannedBatches
from ..batches.token_cache import TokenCache
from ..distributed import is_main_process, main_process_first
from ..loss.guided_loss import GuidedContrastiveLoss
from ..settings import LossSettings, TrainSettings
from ..student.adapters import ADAPTERS, load_adapters
from ..student.load import matryoshka_dims
from .callbacks import EpochOfHardNegatives
from .model_card import SAMPLE, describe_data
from .output_folder import CHECKPOINTS, saving

FEW_NEGATIVES = "few_negatives.parquet"


class StudentTrainer(SentenceTransformerTrainer):
    """Logs the mask's statistics beside the loss, and saves and loads checkpoints the way a run needs.

    Args:
        guided_loss: The loss, inside ``loss`` where that is a ``MatryoshkaLoss``.
        arguments: The base class's own.
    """

    def __init__(self, guided_loss: GuidedContrastiveLoss, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        self.guided_loss = guided_loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics of the mask to a report of the loss."""
        super().log(logs | self.guided_loss.statistics.recent_means() if "loss" in logs else logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ANN401
        with saving(Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        if (Path(checkpoint_path) / ADAPTERS).is_file():
            # The library would load the base model anew, by name and with all of its layers.
            load_adapters(self.model, Path(checkpoint_path))  # type: ignore[arg-type]
        else:
            super()._load_from_checkpoint(checkpoint_path)


def build_trainer(
    settings: TrainSettings, index: GuideIndex, student: SentenceTransformer, held_out: RetrievalSet | None
) -> tuple[StudentTrainer, GuidedContrastiveLoss]:
    """Build the trainer and its loss, ready to run.

    Raises:
        SettingsError: Batch size, negatives or hard negatives do not fit the index or the number of processes.
    """
    if settings.batch_size % get_world_size():
        raise SettingsError(
            f"{settings.batch_size} pairs cannot be shared out among {get_world_size()} processes",
            where="--batch-size",
            fix=f"give a multiple of {get_world_size()}",
        )
    loss = GuidedContrastiveLoss(
        student,
        index,
        settings.objective,
        reranker_scores=RerankerScores.open(settings.rescored, index) if settings.rescored else None,
        mini_batch_num_tokens=settings.mini_batch_num_tokens,
    )
    pair_ids = consistent_pairs(index, settings.keep_positive_rank, settings.out)
    columns = _columns(settings, index, loss, pair_ids)
    roles: dict[Role, str] = {role: student.prompts[role] or "" for role in ("query", "document")}
    by_column = {name: roles["query" if name == "anchor" else "document"] for name in columns.names}
    prompts = by_column if any(roles.values()) else None
    collator = _collator(settings, student, columns, roles, prompts)
    cached = collator.tokens is not None
    rows = (
        pair_rows(index, pair_ids[:SAMPLE], columns.negatives)
        if cached
        else _all_rows(index, pair_ids, columns.negatives)
    )
    dims = matryoshka_dims(student, settings.matryoshka)
    trainer = StudentTrainer(
        loss,
        model=student,
        args=_arguments(settings, index, columns, prompts),
        train_dataset=rows,
        data_collator=collator,
        loss=MatryoshkaLoss(student, loss, dims) if dims else loss,
        evaluator=held_out.evaluator() if held_out and settings.eval_steps else None,
        callbacks=[EpochOfHardNegatives(columns.hard_negatives)] if columns.hard_negatives else None,
    )
    trainer.remove_callback(PrinterCallback)  # ProgressDisplay takes its place
    describe_data(student, rows, len(pair_ids), trainer.loss)  # type: ignore[arg-type]
    if cached:  # the card has its sample of texts; from here on, pair ids are enough
        trainer.train_dataset = Dataset.from_dict({"label": pair_ids})
    return trainer, loss


def _all_rows(index: GuideIndex, pair_ids: np.ndarray, negatives: int) -> Dataset:
    """The pairs with their texts, for a student that tokenizes them batch by batch."""
    with main_process_first():
        dataset = index.to_dataset(negatives)
    return dataset if len(pair_ids) == len(dataset) else dataset.select(pair_ids)


def _columns(
    settings: TrainSettings, index: GuideIndex, loss: GuidedContrastiveLoss, pair_ids: np.ndarray
) -> BatchColumns:
    """The batch's columns; hard negatives are chosen here, by the loss's own judge."""
    objective = settings.objective
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
    _refuse_no_negatives(objective, own or int(hard.counts[pair_ids].max()))
    console.print(hard.summary(pair_ids), highlight=False)
    if len(lacking := hard.lacking(pair_ids)) and is_main_process():
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
    roles: dict[Role, str],
    prompts: dict[str, str] | None,
) -> BatchCollator:
    with main_process_first():
        tokens = TokenCache.of(columns.index, student, roles) if settings.token_cache else None
    return BatchCollator(preprocess_fn=student.preprocess, prompts=prompts, columns=columns, tokens=tokens)


def _arguments(
    settings: TrainSettings, index: GuideIndex, columns: BatchColumns, prompts: dict[str, str] | None
) -> SentenceTransformerTrainingArguments:
    saving_steps = settings.save_steps or settings.eval_steps
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(settings.out / CHECKPOINTS),
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
        save_strategy="steps" if saving_steps else "no",
        save_steps=saving_steps or 500,
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
        batch_sampler=PlannedBatches.of(index, columns.negatives, hardness=settings.hardness),
    )
    if arguments.n_gpu > 1:  # the trainer would multiply the batch by it; several GPUs are several processes here
        arguments._n_gpu = 1
    return arguments


def refuse_unknown_loggers(names: Sequence[str]) -> None:
    """Raise SettingsError where a logger is none of the trainer's, or cannot be loaded."""
    for name in sorted(set(names) - {"all", "none"}):
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise SettingsError(f"There is no logger {name!r}", where="--report-to", fix=f"give one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"{name} cannot be loaded: {error}",
                where=f"--report-to {name}",
                fix="install what is missing, or leave the logger out",
            ) from error
