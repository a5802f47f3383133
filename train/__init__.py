"""Stage 2: train students against a guide index, with no guide in memory."""

from .loss import GuidedContrastiveLoss
from .sampler import PlannedBatches

__all__ = ["GuidedContrastiveLoss", "PlannedBatches"]
