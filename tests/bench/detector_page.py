"""docs/DETECTOR.md: its tables as Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any

from interleaved import machine
from markdown_table import markdown_table

PAGE = """\
# The guide as a detector of false negatives

How well the paper's judge tells false negatives of Banking77, where the intents say what is one. `python
tests/bench/detector.py` prints this page and writes it; interrupted, it goes on where it stopped. It wants
`banking77_train.csv` of [Banking77](https://github.com/PolyAI-LDN/task-specific-datasets) (CC BY 4.0) in
`data/public` or a folder given with `--data`, and the larger guide: `python data/fetch_mpnet.py --out data/models`.
What the judge does for a student is in [Results](RESULTS.md); a judge with six times the precision in
[A judge of pairs by pairs](JUDGE.md).

{pairs:,} pairs, each a question and another question of the same intent, in batches of 64. A candidate is a text that
may be a negative of a row: not the pair's own positive, no text against itself. It is a false negative in truth when
its text has the anchor's intent. Blocks: a-p is the anchor against the other pairs' positives; all adds anchor against
anchors and positive against positives, as in the paper. Precision: of the masked candidates, the share that had the
anchor's intent. Recall: of the candidates of the anchor's intent, the share that was masked; the others were kept, and
pushed away. Of all candidates, {same_share:.2%} have the anchor's intent: that is the precision of masking at random.
At margin 0 recall is near one half whatever the guide: a pair's positive is itself a random question of the intent,
and another one is as likely above it as below.

{detectors}

## What float16 changes

The index stores guide vectors in float16. The same decisions were taken with the guide's own float32 vectors, over the
first batches of the plan, all blocks.

{rounding}

## Machine

{machine}
"""


def page(detectors: dict[str, dict[str, Any]], pairs: int) -> str:
    """The whole page.

    Args:
        detectors: By guide: ``candidates`` and ``rounding``, the counts of ``detector_counts``.
        pairs: How many there are.
    """
    return PAGE.format(
        pairs=pairs,
        detectors=markdown_table(_detector_rows(detectors)),
        same_share=_same_share(detectors),
        rounding=markdown_table(_rounding_rows(detectors)),
        machine=machine(),
    )


def _detector_rows(detectors: dict[str, dict[str, Any]]) -> list[list[str]]:
    head = ["guide", "margin", "blocks", "candidates masked", "of these the anchor's intent", "same intent, kept"]
    rows = [[*head, "precision", "recall"]]
    for guide, figures in detectors.items():
        for blocks in ("a-p", "all"):
            for margin, counts in _by_margin(figures["candidates"], blocks).items():
                rows.append([guide, margin, blocks, *_detector_row(counts)])
    return rows


def _by_margin(rows: list[dict[str, Any]], blocks: str) -> dict[str, Counter[str]]:
    """Counts summed over the blocks."""
    counts_by_margin: dict[str, Counter[str]] = {}
    for row in rows:
        if blocks == "all" or row["block"] == "ap":
            counts = {name: row[name] for name in ("candidates", "masked", "same", "masked_same")}
            counts_by_margin.setdefault(_margin(row), Counter()).update(counts)
    return counts_by_margin


def _detector_row(counts: Counter[str]) -> list[str]:
    masked, same, both = counts["masked"], counts["same"], counts["masked_same"]
    return [
        f"{masked:,} ({_share(masked, counts['candidates'])})",
        f"{both:,}",
        f"{same - both:,} of {same:,}",
        _share(both, masked),
        _share(both, same),
    ]


def _same_share(detectors: dict[str, dict[str, Any]]) -> float:
    counts = next(iter(_by_margin(next(iter(detectors.values()))["candidates"], "all").values()))
    return counts["same"] / counts["candidates"]


def _rounding_rows(detectors: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["guide", "margin", "decisions", "that differ", "in 10,000"]]
    for guide, figures in detectors.items():
        for row in figures["rounding"]:
            per = 10_000 * row["changed"] / row["candidates"]
            rows.append([guide, _margin(row), f"{row['candidates']:,}", f"{row['changed']:,}", f"{per:.2f}"])
    return rows


def _margin(row: dict[str, Any]) -> str:
    return "0" if not row["margin"] else f"{row['margin']:g} {row['strategy']}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
