"""The SentenceTransformerTrainer of a run, built from index, student, loss and batch plan, and its callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.util.distributed import get_world_size
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...shared.errors import SettingsError
from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.models.device import pick_device
from ...shared.progress import Advance, console, step
from ...shared.types import PRIMARY_METRIC, Role
from ..batches.collators import BatchCollator, BatchColumns
from ..batches.consistency import consistent_pairs, write_pairs
from ..batches.hard_negatives import HardNegatives
from ..batches.sampler import PlannedBatches
from ..batches.token_cache import TokenCache
from ..distributed import is_main_process, main_process_first
from ..loss.guided_loss import GuidedContrastiveLoss
from ..settings import TrainSettings
from ..student.adapters import ADAPTERS, load_adapters
from ..student.load import matryoshka_dims
from .model_card import describe_data
from .output_folder import CHECKPOINTS, saving

FEW_NEGATIVES = "few_negatives.parquet"
SAMPLE = 1_000  # pairs whose texts the model card sees where only tokens are read


class ProgressDisplay(TrainerCallback):
    """Shows steps and loss in place of the trainer's own display, which fills a log with every report.

    Args:
        stack: Closes the display, also where training fails.
    """

    _advance: Advance

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._note = stack, ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the display, at the step where the run begins or resumes."""
        self._advance = self._stack.enter_context(step("train", state.max_steps, "steps", state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Note the loss."""
        if "loss" in (logs := state.log_history[-1]):
            self._note = f"loss {logs['loss']:.4g}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Advance by one step."""
        self._advance(1, self._note)


class EpochOfHardNegatives(TrainerCallback):
    """Draws hard negatives anew each epoch."""

    def __init__(self, hard_negatives: HardNegatives) -> None:
        self.hard_negatives = hard_negatives

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Set the epoch whose negatives are drawn."""
        self.hard_negatives.epoch = int(state.epoch or 0)


class StudentTrainer(SentenceTransformerTrainer):
    """Logs the statistics of ``guided_loss``'s mask, and saves and loads checkpoints the way a run needs."""

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
    with main_process_first():
        tokens = TokenCache.of(index, student, roles) if settings.token_cache else None
        rows = index.dataset_of(pair_ids[:SAMPLE], columns.negatives) if tokens else index.to_dataset(columns.negatives)
    if len(pair_ids) < len(rows):
        rows = rows.select(pair_ids)
    dims = matryoshka_dims(student, settings.matryoshka)
    trainer = StudentTrainer(
        loss,
        model=student,
        args=_arguments(settings, index, columns, prompts),
        train_dataset=rows,
        data_collator=BatchCollator(preprocess_fn=student.preprocess, prompts=prompts, columns=columns, tokens=tokens),
        loss=MatryoshkaLoss(student, loss, dims) if dims else loss,
        evaluator=held_out.evaluator() if held_out and settings.eval_steps else None,
        callbacks=[EpochOfHardNegatives(columns.hard_negatives)] if columns.hard_negatives else None,
    )
    trainer.remove_callback(PrinterCallback)  # ProgressDisplay takes its place
    describe_data(student, rows, len(pair_ids), trainer.loss)  # type: ignore[arg-type]
    if tokens:  # the card has its sample of texts; from here on, pair ids are enough
        trainer.train_dataset = Dataset.from_dict({"label": pair_ids})
    return trainer, loss


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
    hard = None
    if objective.mining.hard_negatives:
        hard = HardNegatives(index, objective.mining, loss.judge, settings.seed, loss.reranker)
        console.print(hard.summary(pair_ids), highlight=False)
        if len(lacking := hard.lacking(pair_ids)) and is_main_process():
            write_pairs(index, lacking, {"negatives_found": hard.counts[lacking]}, settings.out / FEW_NEGATIVES)
            console.print(f"listed in {settings.out / FEW_NEGATIVES}", highlight=False)
    if objective.terms.margin_mse_weight and not (own or (hard and hard.counts[pair_ids].any())):
        raise SettingsError(
            "MarginMSE learns from negatives of a pair, and there are none",
            where="--margin-mse-weight",
            fix="add --hard-negatives 2 and a judge that lets some pass, or build the index from pairs with negatives",
        )
    return BatchColumns(index, own, hard)


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
        metric_for_best_model=f"eval_cosine_{PRIMARY_METRIC}",
        greater_is_better=True,
        logging_steps=settings.logging_steps,
        report_to=list(settings.report_to),
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
    for name in names:
        try:
            for callback in get_reporting_integration_callbacks(name):
                callback()
        except (ImportError, RuntimeError, ValueError) as error:
            what, fix = f"{name} cannot be loaded: {error}", "install what is missing, or give another logger"
            raise SettingsError(what, where=f"--report-to {name}", fix=fix) from error
