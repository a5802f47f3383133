"""What an index holds, what it cost, and what a guide in the training loop would have cost instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from .training_runs import Run


@dataclass(frozen=True)
class Fact:
    """Something in figures: ``note`` says where it comes from."""

    name: str
    value: str
    note: str = ""


def at_a_glance(index: GuideIndex, ranks: np.ndarray) -> list[Fact]:
    """Size and guide of an index, and how often the guide agrees with the pairs; ``ranks`` as positive_ranks counts."""
    corpus, guide = index.manifest.request.corpus, index.manifest.request.guide
    rejected = sum(corpus["rejected"].values())
    return [
        Fact("guide", str(guide["name"]), f"{guide['dim']:,} dimensions"),
        Fact("pairs", f"{corpus['pairs']:,}", f"{corpus['duplicates']:,} duplicates, {rejected:,} rejected rows"),
        Fact("texts", f"{corpus['queries'] + corpus['documents']:,}", f"{corpus['queries']:,} of them anchors"),
        Fact("positive ranked first", f"{ranks[0] / max(1, ranks.sum()):.1%}", "of all pairs"),
        Fact("positive outside the top 10", f"{index.manifest.measured['outside_top_10']:.1%}", "of all pairs"),
    ]


def saved(index: GuideIndex, runs: Sequence[Run]) -> list[Fact]:
    """Guide passes, seconds and bytes: of this index, and of a guide in the loop of the runs that used it."""
    corpus, summary = index.manifest.request.corpus, index.summary() or {}
    own = [run for run in runs if run.same_index]
    passes = sum(run.epochs or 0.0 for run in own)
    texts_a_pass = 2 * corpus["pairs"] + corpus["negatives"]
    computed = summary.get("vectors", {}).get("computed", 0)
    seconds = summary.get("seconds", {}).get("embed")
    vectors = sum(record.bytes for record in index.manifest.shards["vectors"])
    everything = sum(record.bytes for record in index.manifest.records)
    per_text = seconds / computed if seconds and computed else None
    facts = [
        Fact("guide passes", "1", f"{corpus['queries'] + corpus['documents']:,} texts, each once"),
        Fact(
            "passes of a guide in the loop",
            f"{passes:,.2f}" if own else "one an epoch",
            f"runs of this index: {len(own):,}; {texts_a_pass:,} texts a pass, all of every pair",
        ),
    ]
    if per_text is not None:
        one = texts_a_pass * per_text
        facts += [
            Fact(
                "guide seconds",
                f"{seconds:,.0f}",
                f"{computed:,} texts embedded; the whole build {summary['seconds_total']:,.0f}",
            ),
            Fact(
                "guide seconds in the loop",
                f"{one * passes:,.0f}" if own else f"{one:,.0f} a pass",
                "estimated: its texts at the speed measured here, which small padded batches do not reach",
            ),
        ]
    else:
        facts.append(Fact("guide seconds", "not known", "no summary of this build lies beside the index"))
    return [
        *facts,
        Fact("bytes on disk", f"{everything / 1e6:,.1f} MB", f"the price; vectors are {vectors / 1e6:,.1f} MB of it"),
    ]
