"""The `gistcache index` command."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..shared.cli.output import CommandResult
from .settings import IndexSettings


def index(
    pairs: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (), *, settings: IndexSettings
) -> CommandResult:
    """Embed pairs with a guide, once, and write a guide index.

    Run the same command again after an interruption: every finished shard is kept.

    Parameters
    ----------
    pairs
        Files, globs or folders of Parquet, JSONL, CSV or TSV
        (the last three also .gz or .zst), or hf://datasets/... paths.
    """
    from .build import index_pairs  # loads libraries that take seconds, and --help needs none
    from .summary import summary_table

    summary = index_pairs(pairs, settings)
    return CommandResult(summary, (summary_table(summary),))
