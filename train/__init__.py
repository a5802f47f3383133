"""Stage 2: train students against a guide index, with no guide in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared import lazy_attributes

if TYPE_CHECKING:
    from .batches.sampler import PlannedBatches
    from .loss.guided_loss import GuidedContrastiveLoss
    from .run.run import train_student
    from .settings import LossSettings, TrainSettings

__all__ = ["GuidedContrastiveLoss", "LossSettings", "PlannedBatches", "TrainSettings", "train_student"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "GuidedContrastiveLoss": "loss.guided_loss",
        "LossSettings": "settings",
        "PlannedBatches": "batches.sampler",
        "TrainSettings": "settings",
        "train_student": "run.run",
    },
)
