"""Stage 2, one training run: from a guide index and a student to the trained model, its card and its metrics."""

from __future__ import annotations

import json
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

from ...shared.errors import StaleIndexError, StoppedEarly
from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.models.device import pick_device, within_memory
from ...shared.models.load import set_prompts
from ...shared.models.locate import find_model, fingerprint_files
from ...shared.progress import console, spinner
from ...shared.settings import with_fields
from ...shared.storage.files import write_json
from ...shared.storage.lock import folder_lock
from ...shared.timing import Timings, peak_memory_bytes
from ..batches.sampler import refuse_too_few
from ..distributed import barrier, is_main_process, main_process_first, process_group
from ..loss.guided_loss import GuidedContrastiveLoss
from ..settings import TrainSettings
from ..student.adapters import add_adapters, merge_adapters
from ..student.footprint import encoding_speed
from ..student.load import load_student, matryoshka_dims
from .checkpoints import Checkpoint, Checkpoints, all_checkpoints, newest_intact
from .model_card import describe_student, write_card
from .output_folder import CHECKPOINTS, METRICS, read_finished, refuse_foreign, save_model
from .trainer import ProgressDisplay, build_trainer, refuse_unknown_loggers

MEMORY_FIX = "give --mini-batch-num-tokens 16384, which changes no gradient, or a smaller --batch-size; add --resume"


@dataclass(frozen=True)
class Run:
    """What a run works on; ``identity`` is what determines the weights, compared by content."""

    settings: TrainSettings
    index: GuideIndex
    held_out: RetrievalSet | None
    identity: dict[str, Any]

    @classmethod
    def open(cls, settings: TrainSettings, index: GuideIndex | None = None) -> Run:
        """Open the inputs of a run; ``index`` is that of the settings, where it is open already."""
        index = index or GuideIndex.open(settings.index, verify=settings.verify)
        held_out = RetrievalSet.read(settings.eval_pairs, settings.columns) if settings.eval_pairs else None
        identity = {
            "index": asdict(index.manifest.request),
            "student": fingerprint_files(find_model(settings.student)),
            "settings": {"held_out": held_out.fingerprint() if held_out else None, **settings.determining()},
        }
        if settings.rescored:
            identity["rescored"] = RerankerScores.open(settings.rescored, index).request
        return cls(settings, index, held_out, json.loads(json.dumps(identity)))


def train_student(
    settings: TrainSettings | None = None,
    *,
    index: GuideIndex | str | Path | None = None,
    **values: Any,  # noqa: ANN401 (each setting has its own type)
) -> dict[str, Any]:
    """Train one student; write the model, its card and ``metrics.json`` into ``settings.out``.

    It does what `gistcache train` does: ``resume=True`` continues from the newest checkpoint, and a finished run of the
    same settings is left as it is.

    Args:
        settings: All settings; or give them by keyword.
        index: The guide index, open or its folder or URL; default: that of the settings.
        values: Settings by keyword, those of the loss, judge, hard negatives and distillation too, by the names of
            their flags: ``student="...", out="runs/first", temperature=0.02, kl_weight=1.0``.

    Returns:
        The metrics, as ``metrics.json`` has them.

    Raises:
        GistcacheError: Index, student, held-out pairs or settings cannot be used.
        StoppedEarly: SIGTERM has stopped the training after a step; a checkpoint is written.

    Example:
        >>> metrics = train_student(index="guide-index", student="all-MiniLM-L6-v2", out="runs/first")  # doctest: +SKIP
    """
    if settings is None:
        settings = TrainSettings(**{name: values.pop(name) for name in values.keys() & {"student"}})
    if index is not None:
        values["index"] = str(index.layout.root) if isinstance(index, GuideIndex) else index
    settings = with_fields(settings, **values)
    refuse_unknown_loggers(settings.report_to)
    with process_group(pick_device(settings.device)), within_memory(MEMORY_FIX):
        with main_process_first():
            if is_main_process():  # the others come here when it may have begun to write
                refuse_foreign(settings.out)
            run = Run.open(settings, index if isinstance(index, GuideIndex) else None)
            refuse_too_few(len(run.index), settings.batch_size, run.index)
            metrics = read_finished(settings.out, run.identity)
        if metrics:
            console.print(f"{settings.out} already holds this model, nothing to do", highlight=False)
            return metrics
        with folder_lock(settings.out / CHECKPOINTS) if is_main_process() else nullcontext():
            return _train_and_evaluate(run)


def finished_metrics(settings: TrainSettings) -> dict[str, Any] | None:
    """Read the metrics of this very run, compared by content, where it has ended before; None where it has not.

    Raises:
        GistcacheError: Its folder holds another run's model, or an input cannot be used.
    """
    if not (settings.out / METRICS).is_file():
        return None
    return read_finished(settings.out, Run.open(settings).identity)


def _train_and_evaluate(run: Run) -> dict[str, Any]:
    """Everything from loading the student to writing ``metrics.json``; returns the metrics."""
    settings, timings = run.settings, Timings()
    with main_process_first():
        checkpoint = _checkpoint_to_resume(run)
    student = _load_student(settings)
    retrieval = {"student before": _evaluate(run, student, "before", timings)}
    trainer, loss = build_trainer(settings, run.index, student, run.held_out)
    with timings.measure("train"):
        _train(run, trainer, loss, checkpoint)
    trained = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    if settings.lora_rank:
        merge_adapters(student)
    size = save_model(student, settings.out) if is_main_process() else None
    student.model_card_data.eval_results_dict = {}  # so far those of the untrained student
    retrieval["student after"] = _evaluate(run, student, "after", timings)
    for dim in matryoshka_dims(student, settings.matryoshka)[1:]:
        with student.truncate_embeddings(dim):
            retrieval[f"student after, {dim} dimensions"] = _evaluate(run, student, f"{dim} dimensions", timings)
    counts, log = loss.statistics.counts().means(), trainer.state.log_history
    # The trainer's own mean covers only the steps after a resume; without --logging-steps there is no other.
    losses = [entry["loss"] for entry in log if "loss" in entry] or [log[-1]["train_loss"]]
    metrics = {
        "retrieval": {**retrieval, "guide": _guide_retrieval(run)},
        **{name: counts.get(name) for name in ("removed_share", "effective_negatives", "mean_threshold")},
        "training_loss": fmean(losses),
        "steps": trainer.state.global_step,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "trained_parameters": trained,
        "model_bytes": size,
        **(encoding_speed(student, run.index) if is_main_process() else {}),
        "seconds": timings.as_json(),
        "peak_memory_bytes": peak_memory_bytes(),
        "settings": settings.recorded(),
        **({"index": summary} if (summary := run.index.summary()) else {}),
        "log": log,
        "run": run.identity,
    }
    if is_main_process():
        write_card(settings.out / "README.md", student, run.index, metrics)
        write_json(settings.out / METRICS, metrics)
    barrier()
    return metrics


def _checkpoint_to_resume(run: Run) -> Checkpoint | None:
    folder = run.settings.out / CHECKPOINTS
    if run.settings.resume:
        checkpoint = newest_intact(folder, run.identity)
        start = f"resuming from {checkpoint.folder}" if checkpoint else "no checkpoint yet: starting at the beginning"
        console.print(start, highlight=False)
        return checkpoint
    if all_checkpoints(folder):
        raise StaleIndexError(
            "The folder holds checkpoints of an earlier run",
            where=str(folder),
            fix="give --resume to continue from them, another --out, or delete them",
        )
    return None


def _load_student(settings: TrainSettings) -> SentenceTransformer:
    """The student as it enters training: pruned or static, with its prompts, adapters and card."""
    student = load_student(
        settings.student,
        layers=settings.layers,
        static=settings.static,
        max_length=settings.max_length,
        device=pick_device(settings.device),
    )
    matryoshka_dims(student, settings.matryoshka)  # refused before anything is evaluated
    set_prompts(student, settings.query_prompt, settings.document_prompt)
    if settings.lora_rank:
        add_adapters(student, settings.lora_rank, settings.seed)
    describe_student(student, settings)
    return student


def _train(
    run: Run, trainer: SentenceTransformerTrainer, loss: GuidedContrastiveLoss, checkpoint: Checkpoint | None
) -> None:
    checkpoints = Checkpoints(run.identity, run.settings.save_minutes, loss)
    trainer.add_callback(checkpoints)
    if checkpoint:
        loss.statistics.start_from(checkpoint.counts)
        loss.load_state(checkpoint.folder)
    with checkpoints.stop_on_sigterm(), ExitStack() as stack:
        trainer.add_callback(ProgressDisplay(stack))
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    if checkpoints.stopping:
        raise StoppedEarly(
            f"Stopped by SIGTERM at step {trainer.state.global_step} of {trainer.state.max_steps}",
            where=f"checkpoints are in {run.settings.out / CHECKPOINTS}",
            fix="run the same command with --resume to continue",
        )


def _evaluate(run: Run, student: SentenceTransformer, name: str, timings: Timings) -> dict[str, float] | None:
    """Retrieval on the held-out pairs, by rank 0 alone."""
    if run.held_out is None or not is_main_process():
        return None
    with timings.measure(f"evaluate {name}"), spinner(f"evaluate {name}"):
        return run.held_out.evaluate(student)


def _guide_retrieval(run: Run) -> dict[str, float] | None:
    """The guide's retrieval as stage 1 measured it, if it was on the same held-out pairs."""
    manifest = run.index.manifest
    if run.held_out is None or manifest.request.settings.get("eval_pairs") != run.held_out.fingerprint():
        return None
    return manifest.measured.get("guide")
