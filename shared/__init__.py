"""What both stages use: the guide index on disk, input files, models, errors, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import GistcacheError

if TYPE_CHECKING:
    from .guide_index.guide_index import GuideIndex, PairIds
    from .guide_index.reranker_scores import RerankerScores

__all__ = ["GistcacheError", "GuideIndex", "PairIds", "RerankerScores"]


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, which imports each attribute from its module at first use (PEP 562)."""

    def get(name: str) -> Any:  # noqa: ANN401 (an attribute of any type)
        if name in modules:
            return getattr(import_module(f".{modules[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


__getattr__ = lazy_attributes(
    __name__,
    {
        "GuideIndex": "guide_index.guide_index",
        "PairIds": "guide_index.guide_index",
        "RerankerScores": "guide_index.reranker_scores",
    },
)
