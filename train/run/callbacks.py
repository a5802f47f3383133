"""Callbacks of the trainer: the product's own progress display, and the epoch that hard negatives are drawn for."""

from __future__ import annotations

from contextlib import ExitStack

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...shared.progress import AdvanceWithNote, step
from ..batches.hard_negatives import HardNegatives


class ProgressDisplay(TrainerCallback):
    """Shows steps and loss in place of the trainer's own display, which fills a log with every report.

    Args:
        stack: Closes the display, also where training fails.
    """

    _advance: AdvanceWithNote

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
