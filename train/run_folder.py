"""What stands where in the folder of a training run."""

from __future__ import annotations

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
SWEEP_LOG = "train.log"
