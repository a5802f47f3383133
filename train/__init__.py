"""Stage 2: train students against a guide index, with no guide in memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loss import GuidedContrastiveLoss
    from .sampler import PlannedBatches

__all__ = ["GuidedContrastiveLoss", "PlannedBatches"]

_HOMES = {"GuidedContrastiveLoss": "loss", "PlannedBatches": "sampler"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (PEP 562: the command line imports this package and wants to be quick)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
