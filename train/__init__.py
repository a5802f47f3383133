"""Stage 2: train students against a guide index, with no guide in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared.lazy import looked_up

if TYPE_CHECKING:
    from .loss import GuidedContrastiveLoss
    from .sampler import PlannedBatches

__all__ = ["GuidedContrastiveLoss", "PlannedBatches"]

__getattr__ = looked_up(__name__, {"GuidedContrastiveLoss": "loss", "PlannedBatches": "sampler"})
