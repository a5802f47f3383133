"""What both stages use: the guide index on disk, models, pairs, errors, and the command line."""

from .errors import GistcacheError
from .index import GuideIndex, PairIds

__all__ = ["GistcacheError", "GuideIndex", "PairIds"]
