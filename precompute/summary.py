"""What a build did: seconds and memory of each step, counted texts, and the table shown at the end."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..shared.guide_index.manifest import Manifest
from ..shared.storage.files import FileRecord
from ..shared.timing import Timings, peak_memory_bytes
from .output.store import Store

TOP = 10


def summarize(place: Store, manifest: Manifest, clock: Timings) -> dict[str, Any]:
    """All figures of a finished build, JSON-ready."""
    corpus = manifest.request.corpus
    texts = corpus["queries"] + corpus["documents"]
    return {
        "index": str(place),
        "manifest": manifest.key,
        "guide": manifest.request.guide["name"],
        "pairs": corpus["pairs"],
        "duplicates": corpus["duplicates"],
        "rejected": corpus["rejected"],
        "texts": texts,
        "vectors": dict(clock.texts),
        "bytes": sum(record.bytes for record in manifest.records),
        "seconds": clock.as_json(),
        "seconds_total": round(clock.total, 2),
        "texts_per_second": round(texts / clock.seconds["embed"], 1) if "embed" in clock.seconds else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "measured": manifest.measured,
    }


def outside_top(place: Store, scores: list[FileRecord], top: int = TOP) -> float:
    """Share of pairs whose positive has ``top`` documents or more above it in the guide's ranking."""
    outside = pairs = 0
    for record in scores:
        ranks = place.frame(record, "scores", ["positive_rank"])["positive_rank"].to_numpy()
        outside += int((ranks >= top).sum())
        pairs += len(ranks)
    return outside / max(1, pairs)


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary as a person reads it."""
    rejected = summary["rejected"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    sources = ", ".join(f"{count:,} {source}" for source, count in summary["vectors"].items())
    rows = {
        "pairs": f"{summary['pairs']:,} ({summary['duplicates']:,} exact duplicates dropped)",
        "rejected rows": f"{sum(rejected.values()):,}" + (f" ({reasons})" if reasons else ""),
        "texts": f"{summary['texts']:,}"
        + (f": {sources}" if sources else "")
        + (f", {summary['texts_per_second']:,} texts/s" if summary["texts_per_second"] else ""),
        "positive outside the guide's top 10": f"{summary['measured']['outside_top_10']:.1%} of pairs",
        **_held_out(summary["measured"].get("guide", {})),
        "seconds": f"{summary['seconds_total']:,.1f}: "
        + ", ".join(f"{name} {value:,.1f}" for name, value in summary["seconds"].items()),
        "size": f"{summary['bytes'] / 1e6:,.1f} MB",
        "peak memory": f"{summary['peak_memory_bytes'] / 1e6:,.0f} MB",
    }
    search = summary["measured"]["search"]
    if not search["exact"]:
        rows["neighbour search"] = f"{search['kind']}, recall@{search['recall_at']} {search['recall']:.3f}"
    table = Table(title=f"guide index {summary['index']}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _held_out(figures: dict[str, float]) -> dict[str, str]:
    """A row for the guide's figures on held-out pairs, where there are any."""
    spelt = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}
    told = ", ".join(f"{spelt.get(name, name)} {value:.3f}" for name, value in figures.items())
    return {"guide on held-out pairs": told} if told else {}
