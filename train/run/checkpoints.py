"""Checkpoints that survive an interruption: complete and undamaged, or not used, and of one run only.

``checksums.json`` is written last, with each file's checksum and the run's identity; without it, one is set aside.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints, sort_checkpoints

from ...shared.errors import IndexFaultError
from ...shared.storage.files import sha256_of
from ...shared.storage.integrity import read_checksummed, write_checksummed
from ..distributed import all_reduce_sum, barrier, is_main_process
from ..loss.guided_loss import GuidedContrastiveLoss
from ..loss.statistics import MaskCounts
from .output_folder import refuse_other_run, saving

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
MOST_CHECKPOINTS = 2


class Checkpoint(NamedTuple):
    """An intact checkpoint, and the mask counts of the steps before it."""

    folder: Path
    counts: MaskCounts


class Checkpoints(TrainerCallback):
    """Requests a checkpoint every ``minutes`` and at SIGTERM; adds the loss's state, counts and checksums to each."""

    def __init__(self, identity: dict[str, Any], minutes: float, loss: GuidedContrastiveLoss) -> None:
        self.identity, self.minutes, self.loss = identity, minutes, loss
        self.stopping = False
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Request a checkpoint where one is due; stop training after a SIGTERM."""
        due = is_main_process() and time.monotonic() - self._last > 60 * self.minutes
        stop, save = all_reduce_sum([self.stopping, due])  # all ranks save, or none
        if stop:
            self.stopping = control.should_training_stop = True
        if stop or save:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Add the loss's own weights, its counts and the checksums to the checkpoint."""
        folder, counts = Path(str(args.output_dir)), self.loss.statistics.counts()
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        barrier()  # each rank writes its own random state
        if is_main_process():
            with saving(checkpoint):
                self.loss.save_state(checkpoint)
                _write_checksums(checkpoint, self.identity, counts)
            # The trainer itself would delete an old checkpoint before the new one is complete.
            rotate_checkpoints(str(folder), MOST_CHECKPOINTS, state.best_model_checkpoint)
        barrier()
        self._last = time.monotonic()

    @contextmanager
    def stop_on_sigterm(self) -> Iterator[None]:
        """Within this context SIGTERM ends training after the current step.

        transformers' own handler may save in the middle of a step, which is then repeated with other random numbers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _write_checksums(checkpoint: Path, identity: dict[str, Any], counts: MaskCounts) -> None:
    """Flush every file to the disk, and write the checksums."""
    files = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(checkpoint).as_posix()] = sha256_of(path)
    write_checksummed(checkpoint / CHECKSUMS, {"run": identity, "counts": list(counts), "files": files})


def newest_intact(folder: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """Find the newest intact checkpoint of a run; rename damaged ones, with a warning.

    Raises:
        StaleIndexError: The newest intact checkpoint is of another run; names each difference.
    """
    for checkpoint in reversed(all_checkpoints(folder)):
        try:
            content = _verify(checkpoint)
        except IndexFaultError as error:
            aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
            logger.warning("%s is damaged and not used; it is now %s. %s", checkpoint, aside.name, error.what)
            continue
        refuse_other_run(folder, content["run"], identity, "checkpoint")
        return Checkpoint(checkpoint, MaskCounts(*content["counts"]))
    return None


def all_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoint folders, intact or not, oldest first."""
    return [Path(checkpoint) for checkpoint in sort_checkpoints(str(folder))]


def _verify(checkpoint: Path) -> dict[str, Any]:
    """Compare every file with ``checksums.json``; returns its content."""
    if not (checkpoint / CHECKSUMS).is_file():
        raise IndexFaultError("It has no checksums: writing it was interrupted")
    content = read_checksummed(checkpoint / CHECKSUMS, "checkpoint's checksums.json")
    for name, checksum in content["files"].items():
        file = checkpoint / name
        if not file.is_file() or sha256_of(file) != checksum:
            raise IndexFaultError(f"{name} is {'damaged' if file.is_file() else 'missing'}")
    return content
