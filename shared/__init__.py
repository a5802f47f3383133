"""What both stages use: the guide index on disk, models, pairs, errors, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import looked_up

if TYPE_CHECKING:
    from .errors import GistcacheError
    from .guide_index.guide_index import GuideIndex, PairIds

__all__ = ["GistcacheError", "GuideIndex", "PairIds"]

__getattr__ = looked_up(
    __name__,
    {"GistcacheError": "errors", "GuideIndex": "guide_index.guide_index", "PairIds": "guide_index.guide_index"},
)
