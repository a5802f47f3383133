"""The `gistcache index` command."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..shared.cli.output import CommandResult
from ..shared.storage.files import write_json
from ..shared.storage.remote import Remote
from ..shared.timing import Timings
from .output.store import Store
from .settings import IndexSettings
from .summary import summarize, summary_table


def index(
    pairs: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (), *, settings: IndexSettings
) -> CommandResult:
    """Embed pairs with a guide, once, and write a guide index.

    Run the same command again after an interruption: every finished part is kept.

    Parameters
    ----------
    pairs
        Files, globs or folders of Parquet, JSONL, CSV or TSV
        (the last three also .gz or .zst), or hf://datasets/... paths.
    """
    from .build import build_index  # the libraries that it loads take seconds, and --help needs none

    clock, place = Timings(), Store.of(settings.out)
    manifest = build_index(pairs, settings, clock)
    summary = summarize(place, manifest, clock)
    if "embed" in clock.seconds:
        write_json(place.layout.summary, summary)
        if place.remote:
            Remote(f"{place.remote.url}.summary.json").put(place.layout.summary, "")
    return CommandResult(summary, (summary_table(summary),))
