"""What both stages use: the guide index on disk, models, pairs, errors, and the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import GistcacheError
    from .index import GuideIndex, PairIds

__all__ = ["GistcacheError", "GuideIndex", "PairIds"]

_HOMES = {"GistcacheError": "errors", "GuideIndex": "index", "PairIds": "index"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (PEP 562: the command line imports this package and wants to be quick)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
