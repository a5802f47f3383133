"""The `gistcache index` command."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

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

    summary = index_pairs(pairs, settings)
    return CommandResult(summary, (_table(summary),))


def _table(summary: dict[str, Any]) -> Table:
    rejected, measured = summary["rejected"], summary["measured"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    sources = ", ".join(f"{count:,} {source}" for source, count in summary["vectors"].items())
    speed = f", {summary['texts_per_second']:,} texts/s" if summary["texts_per_second"] else ""
    seconds = ", ".join(f"{name} {value:,.1f}" for name, value in summary["seconds"].items())
    rows = {
        "pairs": f"{summary['pairs']:,} ({summary['duplicates']:,} exact duplicates dropped)",
        "rejected rows": f"{sum(rejected.values()):,}" + (f" ({reasons})" if reasons else ""),
        "texts": f"{summary['texts']:,}" + (f": {sources}" if sources else "") + speed,
        "positive outside the guide's top 10": f"{measured['outside_top_10']:.1%} of pairs",
    }
    if "guide" in measured:
        names = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}
        figures = ", ".join(f"{names.get(name, name)} {value:.3f}" for name, value in measured["guide"].items())
        rows["guide on held-out pairs"] = figures
    rows |= {
        "seconds": f"{summary['seconds_total']:,.1f}: {seconds}",
        "size": f"{summary['bytes'] / 1e6:,.1f} MB",
        "peak memory": f"{summary['peak_memory_bytes'] / 1e6:,.0f} MB",
    }
    search = measured["search"]
    if not search["exact"]:
        rows["neighbor search"] = f"{search['kind']}, recall@{search['recall_at']} {search['recall']:.3f}"
    table = Table(title=f"guide index {summary['index']}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
