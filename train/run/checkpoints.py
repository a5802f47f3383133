"""Checkpoints that survive what stops a run: sealed once they are whole, checked before they are used, of one run only.

The trainer writes a checkpoint file by file. Here it gets a seal, written last: the checksum of each file, and the run
it belongs to. A checkpoint without a seal, or that differs from it, was cut short and is set aside.
"""

from __future__ import annotations

import errno
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
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from ...shared.errors import GistcacheError, IndexFaultError, first_line
from ...shared.guide_index.manifest import refuse_differences
from ...shared.storage.files import sha256_of
from ...shared.storage.integrity import read_checksummed, write_checksummed
from ..distributed import all_reduce_sum, is_main_process, wait
from ..loss.guided_loss import GuidedContrastiveLoss
from ..loss.statistics import MaskCounts

logger = logging.getLogger(__name__)

SEAL_FILE = "seal.json"
SET_ASIDE = "damaged"
KEPT = 2
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
DISK_WORDS = (
    "No space left",
    "PytorchStreamWriter",
    "file write failed",
    "unexpected pos",
    "iostream error",
    "Disk quota",
)


class Resumed(NamedTuple):
    """A whole checkpoint and the counts of candidates up to it."""

    folder: Path
    counts: MaskCounts


class Checkpoints(TrainerCallback):
    """Asks the trainer for checkpoints by the clock and when the process is told to end, and seals them.

    Args:
        run: What determines the weights, JSON-ready.
        minutes: Write a checkpoint when so many have passed since the last one.
        loss: Its counts of candidates and its own weights belong to a checkpoint.
    """

    def __init__(self, run: dict[str, Any], minutes: float, loss: GuidedContrastiveLoss) -> None:
        self.run, self.minutes, self.loss = run, minutes, loss
        self.told_to_end = False
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for a checkpoint where one is due; end, where the process was told to."""
        due = is_main_process() and time.monotonic() - self._last > 60 * self.minutes
        told, save = all_reduce_sum([self.told_to_end, due])  # all processes save, or none
        if told:
            self.told_to_end = True
            control.should_save = control.should_training_stop = True
        elif save:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Add what is ours to the checkpoint, and seal it."""
        folder, counts = Path(str(args.output_dir)), self.loss.statistics.counts()
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        wait()  # each process writes its own random state
        if is_main_process():
            self.loss.save_state(checkpoint)
            seal(checkpoint, self.run, counts)
            # The trainer itself would delete an old checkpoint before the new one is known to be whole.
            rotate_checkpoints(str(folder), save_total_limit=KEPT, best_model_checkpoint=state.best_model_checkpoint)
        wait()
        self._last = time.monotonic()

    @contextmanager
    def until_told(self) -> Iterator[None]:
        """Within this context SIGTERM (a machine about to be taken away) ends training after the step at hand.

        transformers' own handler waits three seconds, and may save in the middle of a step, which then repeats with
        other random numbers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def told(number: int, frame: FrameType | None) -> None:
            self.told_to_end = True

        before = signal.signal(signal.SIGTERM, told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def seal(checkpoint: Path, run: dict[str, Any], counts: MaskCounts) -> None:
    """Vouch for every file of a checkpoint, once it is on the disk."""
    files = {}
    for path in _files(checkpoint):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(checkpoint).as_posix()] = sha256_of(path)
    write_checksummed(checkpoint / SEAL_FILE, {"run": run, "counts": list(counts), "files": files})


def newest_whole(folder: Path, run: dict[str, Any]) -> Resumed | None:
    """The newest whole checkpoint of a run; damaged ones are set aside with a warning.

    Args:
        folder: Where the trainer keeps its checkpoints.
        run: What determines the weights.

    Raises:
        StaleIndexError: The newest whole checkpoint is of another run; names each difference.
    """
    for checkpoint in reversed(all_checkpoints(folder)):
        try:
            held = _whole(checkpoint)
        except IndexFaultError as error:
            aside = checkpoint.with_name(f"{SET_ASIDE}-{checkpoint.name}")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
            logger.warning("%s is not whole and is not used; it is now %s. %s", checkpoint, aside.name, error.what)
            continue
        refuse_other_run(folder, held["run"], run, "checkpoint")
        return Resumed(checkpoint, MaskCounts(*held["counts"]))
    return None


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders, whole or not, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and _step(path) is not None]
    return sorted(found, key=lambda path: _step(path) or 0)


def refuse_other_run(folder: Path, held: dict[str, Any], asked: dict[str, Any], holder: str) -> None:
    """Raise StaleIndexError naming each way in which a folder's run differs from the one asked for."""
    refuse_differences(
        held,
        asked,
        holder,
        "The folder holds a run with other settings",
        where=str(folder),
        fix="give the settings it was begun with, or use another --out",
    )


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn a failed write of a checkpoint or model into an error that says so; what was cut short is deleted.

    Raises:
        GistcacheError: The disk is full or cannot be written.
    """
    try:
        yield
    except Exception as error:  # torch, safetensors and tokenizers share no class for it; what is no such error goes on
        if not _of_the_disk(error):
            raise
        for checkpoint in all_checkpoints(folder):
            if not (checkpoint / SEAL_FILE).is_file():
                shutil.rmtree(checkpoint, ignore_errors=True)
        raise GistcacheError(
            f"The disk cannot take the checkpoint or model: {first_line(error)}",
            where=str(folder),
            fix="make room, then run the same command with --resume: it goes on from the newest checkpoint",
        ) from error


def _of_the_disk(error: Exception) -> bool:
    """Torch, safetensors and tokenizers tell a full disk by words only."""
    if isinstance(error, OSError):
        return error.errno in DISK_ERRORS
    return any(word in str(error) for word in DISK_WORDS)


def _whole(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint's seal, after every file has been compared with it."""
    path = checkpoint / SEAL_FILE
    if not path.is_file():
        raise IndexFaultError("It was cut short: it has no seal")
    held = read_checksummed(path, "checkpoint's seal")
    present = {file.relative_to(checkpoint).as_posix(): file for file in _files(checkpoint)}
    for name, checksum in held["files"].items():
        if name not in present or sha256_of(present[name]) != checksum:
            raise IndexFaultError(f"{name} is {'missing' if name not in present else 'damaged'}")
    return held


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != SEAL_FILE)


def _step(checkpoint: Path) -> int | None:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else None
