"""The summary of a build: seconds and memory of each step, counted texts, and the table printed at the end."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..shared.guide_index.manifest import Manifest
from ..shared.storage.files import write_json
from ..shared.storage.remote import Remote
from ..shared.timing import Timings, peak_memory_bytes
from .output.store import Store


def write_summary(store: Store, manifest: Manifest, timings: Timings) -> dict[str, Any]:
    """Summarize a build and write that beside the index, unless the index was finished already."""
    summary = summarize(store, manifest, timings)
    if "embed" in timings.seconds:
        write_json(store.layout.summary, summary)
        if store.remote:
            Remote(f"{store.remote.url}.summary.json").put(store.layout.summary, "")
    return summary


def summarize(store: Store, manifest: Manifest, timings: Timings) -> dict[str, Any]:
    """All figures of a finished build, JSON-ready."""
    corpus = manifest.request.corpus
    texts = corpus["queries"] + corpus["documents"]
    return {
        "index": str(store),
        "manifest": manifest.key,
        "guide": manifest.request.guide["name"],
        "pairs": corpus["pairs"],
        "duplicates": corpus["duplicates"],
        "rejected": corpus["rejected"],
        "texts": texts,
        "vectors": dict(timings.texts),
        "bytes": sum(record.bytes for record in manifest.records),
        "seconds": timings.as_json(),
        "seconds_total": round(sum(timings.seconds.values()), 2),
        "texts_per_second": round(texts / timings.seconds["embed"], 1) if "embed" in timings.seconds else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "measured": manifest.measured,
    }


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary as a table."""
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
    """A row with the guide's figures on held-out pairs, where there are any."""
    names = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}
    text = ", ".join(f"{names.get(name, name)} {value:.3f}" for name, value in figures.items())
    return {"guide on held-out pairs": text} if text else {}
