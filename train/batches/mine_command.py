"""The `gistcache mine` command."""

from __future__ import annotations

from rich.text import Text

from ...shared.cli.output import CommandResult
from ..settings import MineSettings


def mine(index: str, *, settings: MineSettings) -> CommandResult:
    """Write the hard negatives that `gistcache train` draws with the same flags and seed.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    from ...shared.guide_index.guide_index import GuideIndex  # loading this and torch takes seconds
    from .mine import mine_index

    rows, left_out = mine_index(GuideIndex.open(index), settings)
    few = {
        "n-tuple": f"pairs have fewer than {settings.mining.hard_negatives} negatives",
        "flagembedding": "anchors have no negative",
    }
    tail = f"; {left_out:,} {few[settings.format]} and are left out" if left_out else ""
    figures = {"out": str(settings.out), "rows": rows, "left_out": left_out}
    return CommandResult(figures, (Text(f"{settings.out}: {rows:,} rows{tail}"),))
