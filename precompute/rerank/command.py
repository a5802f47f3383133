"""The `gistcache rescore` command."""

from __future__ import annotations

from rich.text import Text

from ...shared.cli.output import CommandResult
from .settings import RescoreSettings


def rescore(index: str, *, settings: RescoreSettings) -> CommandResult:
    """Score an index's neighbors, positives and negatives with a reranker, for --rescored of train and mine.

    Run the same command again after an interruption: finished shards are not scored again.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    from ...shared.guide_index.guide_index import GuideIndex
    from .rescore import rescore_index  # the libraries that it loads take seconds, and --help needs none

    scores = rescore_index(GuideIndex.open(index), settings)
    figures = {"out": str(scores.root), "parts": len(scores.shards)}
    return CommandResult(figures, (Text(f"{scores.root}: {len(scores.shards):,} shards"),))
