"""Training as a step of the product's own progress display, with the loss beside the rate."""

from __future__ import annotations

from contextlib import ExitStack

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...shared.progress import AdvanceWithNote, step


class StepsShown(TrainerCallback):
    """In place of the trainer's own display, which fills a log with every report.

    Args:
        shown_until: What ends the display, also where training fails.
    """

    def __init__(self, shown_until: ExitStack) -> None:
        self._shown_until = shown_until
        self._advance: AdvanceWithNote | None = None
        self._note = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Begin where the run begins, or goes on."""
        self._advance = self._shown_until.enter_context(step("train", state.max_steps, "steps", state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self._note = f"loss {logs['loss']:.4g}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """One step further."""
        if self._advance:
            self._advance(1, self._note)
