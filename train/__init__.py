"""Stage 2: train students against a guide index, with no guide in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared.lazy import lazy_attributes

if TYPE_CHECKING:
    from .batches.sampler import PlannedBatches
    from .loss.guided_loss import GuidedContrastiveLoss

__all__ = ["GuidedContrastiveLoss", "PlannedBatches"]

__getattr__ = lazy_attributes(
    __name__, {"GuidedContrastiveLoss": "loss.guided_loss", "PlannedBatches": "batches.sampler"}
)
