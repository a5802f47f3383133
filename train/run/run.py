"""Stage 2, one run: student in, trained student, its card and its figures out; goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch.nn import Parameter

from ...shared.errors import StaleIndexError, StoppedEarly
from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.models.device import pick_device, within_memory
from ...shared.models.load import set_prompts
from ...shared.models.locate import find_model, fingerprint_files
from ...shared.progress import console, spinner
from ...shared.storage.files import PARTIAL_SUFFIX, atomic_write, write_json
from ...shared.storage.integrity import parse_object
from ...shared.storage.lock import folder_lock
from ...shared.timing import Timings, peak_memory_bytes
from ..batches.sampler import refuse_too_few
from ..distributed import is_main_process, main_process_first, process_group, wait
from ..loss.guided_loss import GuidedContrastiveLoss
from ..settings import TrainSettings
from ..student.adapters import add_adapters, merge_adapters
from ..student.footprint import encoding_speed
from ..student.students import load_student, matryoshka_dims
from .checkpoints import Checkpoints, Resumed, all_checkpoints, newest_whole, refuse_other_run, writing_to
from .hub import push
from .model_card import describe_student, write_card
from .output_folder import METRICS, refuse_foreign
from .step_display import StepsShown
from .trainer import build_trainer, checkpoint_folder, refuse_unknown_loggers

SMALLER = (
    "give --mini-batch-num-tokens 16384, which changes no gradient, or a smaller --batch-size; with --resume the run "
    "goes on from its newest checkpoint"
)


def train_student(settings: TrainSettings) -> dict[str, Any]:
    """Train one student; write the model, its card and ``metrics.json``; return the metrics.

    Where ``metrics.json`` of the same run is there already, nothing is trained.

    Raises:
        GistcacheError: Index, student, held-out pairs or settings cannot be used.
        StoppedEarly: The process was told to end (SIGTERM); a checkpoint is there.
        StorageError: The model is there, but the hub has not taken it.
    """
    with process_group(pick_device(settings.device)), within_memory(SMALLER):
        return _student_trained(settings)


def _student_trained(settings: TrainSettings) -> dict[str, Any]:
    folder = checkpoint_folder(settings)
    refuse_unknown_loggers(settings.report_to)
    with main_process_first():
        if is_main_process():  # the others come when it may have begun to write
            refuse_foreign(settings.out)
        indexes, held_out, run = _inputs(settings)
        refuse_too_few(len(indexes[0]), settings.batch_size, indexes[0])
        finished = _finished(settings, run)
    if finished:
        console.print(f"{settings.out} already holds this model, nothing to do", highlight=False)
    else:
        with folder_lock(folder) if is_main_process() else nullcontext(), writing_to(folder):
            finished = _Run(settings, indexes, held_out, run).metrics()
    if settings.push_to_hub and is_main_process():
        with spinner("push to the hub"):
            url = push(settings.out, settings.push_to_hub, private=settings.hub_private)
        console.print(f"on the hub: {url}", highlight=False)
    return finished


def finished_metrics(settings: TrainSettings) -> dict[str, Any] | None:
    """The metrics of this very run, told by its content, where it has ended before; None where it has not.

    Raises:
        GistcacheError: Its folder holds another run's model, or an input cannot be used.
    """
    if not (settings.out / METRICS).is_file():
        return None
    return _finished(settings, _inputs(settings)[2])


def _inputs(settings: TrainSettings) -> tuple[list[GuideIndex], RetrievalSet | None, dict[str, Any]]:
    """The guide indexes, the held-out pairs, and what determines the weights."""
    indexes = [GuideIndex.open(each, verify=settings.verify) for each in settings.index]
    held_out = RetrievalSet.read(settings.eval_pairs, settings.columns) if settings.eval_pairs else None
    return indexes, held_out, _determining(settings, indexes, held_out)


class _Run:
    """One run of the stage, from the student as it is to the files it leaves."""

    def __init__(
        self, settings: TrainSettings, indexes: list[GuideIndex], held_out: RetrievalSet | None, run: dict[str, Any]
    ) -> None:
        self.settings, self.indexes, self.held_out, self.run = settings, indexes, held_out, run
        self.index = indexes[0]
        self.clock = Timings()
        with main_process_first():
            self.resumed = _resumed(settings, run)
        device = pick_device(settings.device)
        self.student = load_student(
            settings.student,
            layers=settings.layers,
            static=settings.static,
            max_length=settings.max_length,
            device=device,
        )
        set_prompts(self.student, settings.query_prompt, settings.document_prompt)
        self.dims = matryoshka_dims(self.student, settings.matryoshka)
        if settings.lora_rank:
            add_adapters(self.student, settings.lora_rank, settings.seed)
        describe_student(self.student, settings)

    def metrics(self) -> dict[str, Any]:
        """Train, write and evaluate; what was measured."""
        before = self._evaluated("evaluate before")
        trainer, loss = build_trainer(self.settings, self.indexes, self.student, self.held_out)
        self._train(trainer, loss)
        trained = _count(parameter for parameter in self.student.parameters() if parameter.requires_grad)
        if self.settings.lora_rank:
            merge_adapters(self.student)
        size = _save_model(self.student, self.settings.out) if is_main_process() else None
        self.student.model_card_data.eval_results_dict = {}  # so far of the untrained student
        after = {"student after": self._evaluated("evaluate after")}
        for dim in self.dims[1:]:
            with self.student.truncate_embeddings(dim):
                after[f"student after, {dim} dimensions"] = self._evaluated(f"evaluate {dim} dimensions")
        means = loss.statistics.counts().means()
        guide = _guide_figures(self.index, self.held_out)
        metrics = {
            "retrieval": {"student before": before, **after, "guide": guide},
            **{name: means.get(name) for name in ("removed_share", "effective_negatives", "mean_threshold")},
            "training_loss": _mean_loss(trainer.state.log_history),
            "steps": trainer.state.global_step,
            "parameters": _count(self.student.parameters()),
            "trained_parameters": trained,
            "model_bytes": size,
            **(encoding_speed(self.student, self.index) if is_main_process() else {}),
            "seconds": self.clock.as_json(),
            "peak_memory_bytes": peak_memory_bytes(),
            "settings": self.settings.recorded(),
        }
        if summary := self.index.summary():
            metrics["index"] = summary
        metrics |= {"log": trainer.state.log_history, "run": self.run}
        if is_main_process():
            write_card(self.settings.out / "README.md", self.student, self.index, metrics)
            write_json(self.settings.out / METRICS, metrics)
        wait()
        return metrics

    def _train(self, trainer: SentenceTransformerTrainer, loss: GuidedContrastiveLoss) -> None:
        checkpoints = Checkpoints(self.run, self.settings.save_minutes, loss)
        trainer.add_callback(checkpoints)
        if self.resumed:
            loss.statistics.start_from(self.resumed.counts)
            loss.load_state(self.resumed.folder)
            console.print(f"going on from {self.resumed.folder}", highlight=False)
        with self.clock.measure("train"), checkpoints.until_told(), ExitStack() as shown:
            trainer.add_callback(StepsShown(shown))
            trainer.train(resume_from_checkpoint=str(self.resumed.folder) if self.resumed else None)
        if checkpoints.told_to_end:
            raise StoppedEarly(
                f"Told to end (SIGTERM) at step {trainer.state.global_step} of {trainer.state.max_steps}",
                where=f"checkpoints are in {checkpoint_folder(self.settings)}",
                fix="run the same command with --resume to go on",
            )

    def _evaluated(self, name: str) -> dict[str, float] | None:
        if self.held_out is None or not is_main_process():
            return None
        with self.clock.measure(name), spinner(name):
            return self.held_out.evaluate(self.student)


def _determining(settings: TrainSettings, indexes: list[GuideIndex], held_out: RetrievalSet | None) -> dict[str, Any]:
    """What determines the weights: the indexes, the student and the settings, JSON-ready, told by content."""
    first, *others = (asdict(index.manifest.request) for index in indexes)
    student = fingerprint_files(find_model(settings.student))
    determining = {"held_out": held_out.fingerprint() if held_out else None, **settings.determining()}
    named = {f"index {number}": request for number, request in enumerate(others, 2)}
    if settings.rescored:
        named["rescored"] = RerankerScores.open(settings.rescored, indexes[0]).request
    return json.loads(json.dumps({"index": first, **named, "student": student, "settings": determining}))


def _finished(settings: TrainSettings, run: dict[str, Any]) -> dict[str, Any] | None:
    path = settings.out / METRICS
    if not path.is_file():
        return None
    held = parse_object(path, "trained model's metrics.json")
    refuse_other_run(settings.out, dict(held.get("run") or {}), run, "trained model")
    return held


def _resumed(settings: TrainSettings, run: dict[str, Any]) -> Resumed | None:
    folder = checkpoint_folder(settings)
    if settings.resume:
        found = newest_whole(folder, run)
        if found is None:
            console.print("there is no checkpoint to go on from: training starts at the beginning", highlight=False)
        return found
    if all_checkpoints(folder):
        raise StaleIndexError(
            "The folder holds checkpoints of an earlier run",
            where=str(folder),
            fix="give --resume to go on from them, another --out, or delete them",
        )
    return None


def _mean_loss(log: list[dict[str, Any]]) -> float | None:
    """The mean of the logged losses: the trainer's own forgets what was before a resume.

    None is logged in fewer steps than --logging-steps; then it is the trainer's own.
    """
    logged, own = ([entry[name] for entry in log if name in entry] for name in ("loss", "train_loss"))
    losses = logged or own
    return sum(losses) / len(losses) if losses else None


def _count(parameters: Iterable[Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _save_model(student: SentenceTransformer, out: Path) -> int:
    """Save the model beside its place, then move it there file by file; bytes of its weights."""
    partial = out / f"model{PARTIAL_SUFFIX}"
    shutil.rmtree(partial, ignore_errors=True)
    student.save_pretrained(str(partial), create_model_card=False)
    size = sum(path.stat().st_size for path in partial.rglob("*.safetensors"))
    mode = (partial / "modules.json").stat().st_mode  # safetensors makes files that nobody else may read
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            path.chmod(mode)
            with atomic_write(out / path.relative_to(partial)) as target:
                path.rename(target)
    shutil.rmtree(partial)
    return size


def _guide_figures(index: GuideIndex, held_out: RetrievalSet | None) -> dict[str, float] | None:
    """What stage 1 measured of the guide, where it was on the same held-out pairs."""
    if held_out is None or index.manifest.request.settings.get("eval_pairs") != held_out.fingerprint():
        return None
    return index.manifest.measured.get("guide")
