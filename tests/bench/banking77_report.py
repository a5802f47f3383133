"""The tables of docs/RESULTS.md as Markdown, and the machine they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy")
STUDENTS = {None: "all-MiniLM-L6-v2", 3: "three of its layers"}

PAGE = """\
# Results

Students trained on Banking77's training questions with and without a guide, everything else the same, and how well
each guide tells false negatives. `make results` prints this page and writes it; interrupted, it goes on where it
stopped. Without make:

```
python data/fetch_mpnet.py --out data/models
python tests/bench/banking77.py
```

The data are [Banking77](https://github.com/PolyAI-LDN/task-specific-datasets) (`banking77_train.csv`,
`banking77_test.csv`, CC BY 4.0) and the STS benchmark's development split as
[stsb-multi-mt](https://github.com/PhilipMay/stsb-multi-mt) has it (`stsb_en_dev.csv`), in one folder given with
`--data`; without them the command says so and stops. The intents are used to make pairs and to score. Neither guide nor
student sees them.

## Students

{pairs:,} pairs, each a question and another question of the same intent.
{plan}.
One seed; how far another one would move these figures was not measured.

- Banking77: accuracy in percent as MTEB scores it: {draws} times 8 training questions an intent, logistic
  regression on the embeddings, accuracy on the test questions. Mean, and standard deviation over the draws, which are
  the same for every model.
- STS benchmark (dev): Spearman correlation x 100.
- cells removed: the share of a batch's candidate negatives that the guide took out of the loss, at margin 0.

{students}

## The guide as a detector of false negatives

The cells of the same batches. A cell is a candidate negative of a row: not the pair's own positive, no text against
itself. It is a false negative in truth when its text has the anchor's intent. Blocks: a-p is the anchor against the
other pairs' positives; all adds anchor against anchors and positive against positives, as in the paper. Precision: of
the removed cells, the share that had the anchor's intent. Recall: of the cells of the anchor's intent, the share that
was removed; the others were kept, and pushed away. Of all cells, {same_share:.2%} have the anchor's intent: that is the
precision of removing at random. At margin 0 recall is near one half whatever the guide: a pair's positive is itself a
random question of the intent, and another one is as likely above it as below.

{detectors}

## What float16 changes

The index stores guide vectors in float16. The same decisions were taken with the guide's own float32 vectors, over the
first batches of the plan, all blocks.

{rounding}

## Machine

{machine}
"""


def report(
    scores: list[dict[str, Any]],
    detectors: dict[str, dict[str, Any]],
    plan: dict[str, Any],
    pairs: int,
    draws: int,
) -> str:
    """The whole page.

    Args:
        scores: One row a model: layers, loss, guide, temperature, accuracy, deviation, sts, removed_share.
        detectors: By guide: ``cells`` and ``rounding``, the counts of ``banking77_detector``.
        plan: What every training run has in common.
        pairs: Pairs trained on.
        draws: Times that training questions were drawn.
    """
    return PAGE.format(
        pairs=pairs,
        draws=draws,
        plan=_plan(plan),
        students=_table(_student_rows(scores)),
        detectors=_table(_detector_rows(detectors)),
        same_share=_same_share(detectors),
        rounding=_table(_rounding_rows(detectors)),
        machine=_machine(),
    )


def _plan(plan: dict[str, Any]) -> str:
    length = f"{plan['max_steps']} steps" if plan["max_steps"] else f"{plan['epochs']:g} epoch"
    return f"Batch {plan['batch_size']}, {length}, learning rate {plan['learning_rate']:g}, seed {plan['seed']}"


def _student_rows(scores: list[dict[str, Any]]) -> list[list[str]]:
    head = ["model", "training", "temperature", "Banking77", "STS benchmark (dev)", "cells removed"]
    return [head, *(_student_row(score) for score in sorted(scores, key=_order))]


def _order(score: dict[str, Any]) -> tuple:
    """The guide first; then by student: as it is, then by temperature in the order measured."""
    return (score["loss"] is not None or not score["guide"], score["layers"] is not None, score["loss"] is not None)


def _student_row(score: dict[str, Any]) -> list[str]:
    as_is = score["loss"] is None
    guided = f"guided by {score['guide']}" if score["guide"] else "unguided"
    return [
        score["guide"] if as_is and score["guide"] else STUDENTS[score["layers"]],
        "none" if as_is else guided,
        "" if as_is else f"{score['temperature']:g}",
        f"{score['accuracy']:.2f} ± {score['deviation']:.2f}",
        f"{100 * score['sts']:.2f}",
        "" if score["removed_share"] is None else f"{score['removed_share']:.2%}",
    ]


def _detector_rows(detectors: dict[str, dict[str, Any]]) -> list[list[str]]:
    head = ["guide", "margin", "blocks", "cells removed", "of these the anchor's intent", "same intent, kept"]
    rows = [[*head, "precision", "recall"]]
    for guide, figures in detectors.items():
        for blocks in ("a-p", "all"):
            for margin, counts in _by_margin(figures["cells"], blocks).items():
                rows.append([guide, margin, blocks, *_detector_cells(counts)])
    return rows


def _by_margin(cells: list[dict[str, Any]], blocks: str) -> dict[str, Counter[str]]:
    """Counts summed over the blocks."""
    found: dict[str, Counter[str]] = {}
    for row in cells:
        if blocks == "all" or row["block"] == "ap":
            counts = {name: row[name] for name in ("cells", "removed", "same", "removed_same")}
            found.setdefault(_margin(row), Counter()).update(counts)
    return found


def _detector_cells(counts: Counter[str]) -> list[str]:
    removed, same, both = counts["removed"], counts["same"], counts["removed_same"]
    return [
        f"{removed:,} ({_share(removed, counts['cells'])})",
        f"{both:,}",
        f"{same - both:,} of {same:,}",
        _share(both, removed),
        _share(both, same),
    ]


def _same_share(detectors: dict[str, dict[str, Any]]) -> float:
    counts = next(iter(_by_margin(next(iter(detectors.values()))["cells"], "all").values()))
    return counts["same"] / counts["cells"]


def _rounding_rows(detectors: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["guide", "margin", "decisions", "that differ", "in 10,000"]]
    for guide, figures in detectors.items():
        for row in figures["rounding"]:
            per = 10_000 * row["changed"] / row["cells"]
            rows.append([guide, _margin(row), f"{row['cells']:,}", f"{row['changed']:,}", f"{per:.2f}"])
    return rows


def _margin(row: dict[str, Any]) -> str:
    return "0" if not row["margin"] else f"{row['margin']:g} {row['strategy']}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _table(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    return (
        f"{_processor()}, {os.cpu_count()} cores, threads: {threads}; Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
