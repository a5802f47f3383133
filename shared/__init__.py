"""What both stages use: the guide index on disk, input files, models, errors, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import GistcacheError
from .lazy import lazy_attributes

if TYPE_CHECKING:
    from .guide_index.guide_index import GuideIndex, PairIds

__all__ = ["GistcacheError", "GuideIndex", "PairIds"]

__getattr__ = lazy_attributes(__name__, dict.fromkeys(("GuideIndex", "PairIds"), "guide_index.guide_index"))
