"""Stage 1: embed a corpus of pairs with a guide, once, and write a guide index.

    from gistcache.precompute import build_index

    index = build_index("pairs.jsonl", guide="BAAI/bge-small-en-v1.5", out="guide-index")

Importing the package loads no library: its names are imported at their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared import lazy_attributes

if TYPE_CHECKING:
    from .build import build_index
    from .settings import ApiSettings, IndexSettings

__all__ = ["ApiSettings", "IndexSettings", "build_index"]

__getattr__ = lazy_attributes(
    __name__, {"build_index": "build", "IndexSettings": "settings", "ApiSettings": "settings"}
)
