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

    mined = mine_index(GuideIndex.open(index), settings)
    tail = f"; {mined.left_out:,} {mined.reason} and are left out" if mined.left_out else ""
    figures = {"out": str(settings.out), "rows": mined.rows, "left_out": mined.left_out}
    return CommandResult(figures, (Text(f"{settings.out}: {mined.rows:,} rows{tail}"),))
