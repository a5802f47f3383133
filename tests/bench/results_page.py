"""docs/RESULTS.md from what has been measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bench_data import MAX_LENGTH
from markdown_table import markdown_table
from recipes import NO_LONGER_OFFERED, PAPER, PLANS, RECIPES, SEEDS, STUDENTS, Group, Recipe, Task, last_of_each

if TYPE_CHECKING:
    from results import Measurement

PAGE = """\
# Results

What guide, judge and each technique are worth for a student. `make results` measures all scores (interrupted, it goes
on where it stopped) and writes this page; `python tests/bench/results.py --page` writes it from what has been measured,
`tests/bench/results.jsonl`. That takes days on two cores, and minutes on a GPU where `python tests/bench/results.py
--at-once 15` measures them ([how](BENCHMARKS.md#many-students-on-one-gpu)). The machines are at the end.

The data are [Banking77](https://github.com/PolyAI-LDN/task-specific-datasets) (`banking77_train.csv`,
`banking77_test.csv`, CC BY 4.0) and the STS benchmark's development and test splits as
[stsb-multi-mt](https://github.com/PhilipMay/stsb-multi-mt) has them (`stsb_en_dev.csv`, and `stsb_en_test.csv` where it
is there), in `data/public` or a folder given with `--data`, and the docs pairs of `make guide-index`. Student:
all-MiniLM-L6-v2; guide: all-mpnet-base-v2 as it is.

- A training pair of Banking77 is two different questions of one intent. Neither guide nor student sees the intents. A
  tenth of the training questions is held out of the pairs ({fit:,} questions stay, {held_out:,} are held out);
  temperatures and recipes were chosen on these and on the development split, never on what is for testing.
- Banking77: accuracy in percent as MTEB scores it: ten times 8 training questions an intent, logistic regression on the
  embeddings. Chosen on: the same, with the held-out questions in place of the test questions.
- STS dev, STS test: Spearman correlation x 100 on a split of the STS benchmark, of the student trained on Banking77.
- docs nDCG@10: of a student trained on the docs pairs, on held-out docs pairs; STS dev after docs: of that student.
- Mean and standard deviation over {seeds} seeds, or over as many as the brackets say; a figure without deviation is of
  one. A seed determines the order of the pairs and dropout.
- Masked: the share of a batch's candidates that the judge takes out of the loss.
- No longer offered: the soft judge, which lowered a candidate's logit instead of masking it, and a second guide
  (all-MiniLM-L6-v2) gained nothing and were taken out; their rows stay as they were measured.
- Plan, Banking77: `{banking}`. Docs: `{docs}`. Flags of a row replace these. Guide and students read
  `--max-length {length}` tokens. A pass over Banking77's pairs is 140 steps, over the docs pairs 47; for pairs of
  your own, `--epochs` says the same.
- Seconds a step, peak memory, size, texts a second: `python tests/bench/results.py --costs`, 25 steps of each recipe
  alone on the machine, median of {rounds}; the first steps build caches and are part of it. In one round, a difference
  under a third is noise: what the guide adds to a step is in [Speed and memory](BENCHMARKS.md). Columns without
  any measurement are left out.

## Choosing temperature and judge

One seed, the held-out training questions.

{choosing}

## Judge and techniques

"The best recipe" was chosen by one seed: of those tried below, it has most of the task among those within 0.3 of the
base model on STS dev. For the task alone, the judge of pairs by pairs in two passes has more.

{main}

A seed has the same batches in two rows of as many passes (hard batches apart), so their difference varies less than the
rows do. Row less row, mean and standard deviation of the seeds' differences, of students trained on Banking77:

{differences}

## Kinds of students

Each guided as the paper has it, at a rate that suits it ([what they are](STUDENTS.md)). Texts a second: of 2 seconds of
the model's own `encode` after training.

{students}

## The best recipe

Tried on one seed, on the held-out questions:

{best}

## Machines

{machines}
"""


BY_NAME = {recipe.name: recipe for recipe in RECIPES}
COMPARED = [
    (BY_NAME[row], BY_NAME[other])
    for row, others in {
        "judge of pairs by pairs, first quartile": ("unguided", PAPER.name),
        "judge of pairs by pairs at its own threshold, two passes": (
            "unguided, two passes",
            "guided as the paper has it, two passes",
        ),
        "the best recipe": ("the best recipe with the paper's judge",),
        "regression onto the guide": (PAPER.name,),
        "hard batches": (PAPER.name,),
        "KL": (PAPER.name,),
    }.items()
    for other in others
]
PARTS: dict[Group, str] = {"choosing": "Choosing temperature and judge", "best": "The best recipe"}
PARTS |= {"students": "Kinds of students"}
SHOWN = [*RECIPES, *NO_LONGER_OFFERED]
HEADINGS = {recipe.name: PARTS.get(recipe.group, "Judge and techniques") for recipe in SHOWN}


def page(measurement: Measurement) -> str:
    """The whole page; what has not been measured is left empty."""
    return PAGE.format(
        fit=len(measurement.fit),
        held_out=len(measurement.held_out),
        seeds=len(SEEDS),
        banking=" ".join(PLANS["Banking77"]),
        docs=" ".join(PLANS["docs"]),
        length=MAX_LENGTH,
        rounds=_rounds(measurement),
        choosing=_choosing(measurement, "choosing"),
        students=_students(measurement),
        best=_choosing(measurement, "best"),
        differences=_differences(measurement),
        main=_table(measurement, ("as they are", "main", "one technique")),
        machines="\n".join(
            f"- {kind}, {count} figures: {name}" for (kind, name), count in measurement.results.machines(_kind).items()
        ),
    )


def _kind(made_by: dict[str, Any]) -> str:
    """What a figure belongs to, of the page's headings, or costs."""
    return "Costs" if made_by["task"] == "costs" else HEADINGS.get(made_by["recipe"], "Rows that are gone")


def _choosing(measurement: Measurement, group: Group) -> str:
    rows, missing = [["recipe", "flags", "held-out questions", "STS dev", "masked"]], []
    for recipe in (each for each in SHOWN if each.group == group):
        if figures := measurement.measured(recipe, "Banking77"):
            scores = [_mean(figures, name) for name in ("held out", "sts")]
            rows.append([_name(recipe), _flags(recipe), *scores, _share(figures)])
        else:
            missing.append(recipe.name)
    return markdown_table(rows) + _not_measured(missing)


def _table(measurement: Measurement, groups: tuple[Group, ...]) -> str:
    scored = ["Banking77", "STS dev", "STS test", "docs nDCG@10", "STS dev after docs"]
    head = ["recipe", "flags", *scored, "masked", "s a step", "peak MB"]
    rows, missing = [head], []
    for recipe in (each for each in SHOWN if each.group in groups):
        by_task: dict[Task, list[dict[str, Any]]] = {
            task: measurement.measured(recipe, task) for task in ("Banking77", "docs")
        }
        banking, docs = by_task["Banking77"], by_task["docs"]
        if not banking and not docs:
            missing.append(recipe.name)
            continue
        scores = [_mean(banking, name) for name in ("test", "sts", "sts test")]
        scores += [_mean(docs, "ndcg@10", 100), _mean(docs, "sts")]
        rows.append([_name(recipe), _flags(recipe), *scores, _share(banking or docs), *_costs(measurement, recipe)])
    return _measured(rows) + _not_measured(missing)


def _differences(measurement: Measurement) -> str:
    """What one row has more than another, seed by seed."""
    rows = [["row", "less", "Banking77", "STS dev", "STS test"]]
    for pair in COMPARED:
        left, right = (measurement.by_seed(recipe, "Banking77") for recipe in pair)
        both = [
            {name: left[seed][name] - right[seed][name] for name in ("test", "sts", "sts test")}
            for seed in sorted(left.keys() & right.keys())
        ]
        scores = [_mean(both, name, signed=True) for name in ("test", "sts", "sts test")]
        rows.append([*(recipe.name for recipe in pair), *scores])
    return markdown_table(rows)


def _students(measurement: Measurement) -> str:
    rows = [["student", "flags", "Banking77", "STS dev", "STS test", "M weights", "MB", "s a step", "texts/s"]]
    for recipe in (PAPER, *STUDENTS):
        scored, costs = measurement.measured(recipe, "Banking77"), measurement.measured_costs(recipe)
        figures = [
            _median(costs, "parameters", 1e-6, ".1f"),
            _median(costs, "model_bytes", 1e-6, ".1f"),
            _median(costs, "seconds_a_step", 1, ".2f"),
            _median(costs, "texts_per_second", 1, ",.0f"),
        ]
        scores = [_mean(scored, name) for name in ("test", "sts", "sts test")]
        rows.append([recipe.name, _flags(recipe), *scores, *figures])
    return _measured(rows)


def _rounds(measurement: Measurement) -> str:
    counts = {len(measurement.measured_costs(recipe)) for recipe in RECIPES} - {0}
    least, most = min(counts, default=0), max(counts, default=0)
    return f"{least} round{'s' * (least != 1)}" if least == most else f"{least} to {most} rounds"


def _name(recipe: Recipe) -> str:
    return recipe.name + " (no longer offered)" * (recipe in NO_LONGER_OFFERED)


def _flags(recipe: Recipe) -> str:
    return f"`{' '.join(map(str, last_of_each(*recipe.flags)))}`" if recipe.flags else ""


def _not_measured(names: list[str]) -> str:
    return f"\n\nNot measured: {'; '.join(names)}." if names else ""


def _measured(rows: list[list[str]]) -> str:
    """The table without the columns of which nothing is measured."""
    columns = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return markdown_table([[row[column] for column in columns] for row in rows])


def _costs(measurement: Measurement, recipe: Recipe) -> list[str]:
    figures = measurement.measured_costs(recipe)
    return [_median(figures, "seconds_a_step", 1, ".2f"), _median(figures, "peak_memory_bytes", 1e-6, ",.0f")]


def _median(figures: list[dict[str, Any]], name: str, scale: float, form: str) -> str:
    return f"{scale * np.median([each[name] for each in figures]):{form}}" if figures else ""


def _mean(figures: list[dict[str, Any]], name: str, scale: float = 1.0, *, signed: bool = False) -> str:
    values = [scale * each[name] for each in figures if name in each]
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    fewer = f" ({len(values)})" if len(values) < len(SEEDS) else ""
    return f"{np.mean(values):{'+' if signed else ''}.2f} ± {np.std(values, ddof=1):.2f}{fewer}"


def _share(figures: list[dict[str, Any]]) -> str:
    shares = [each["removed_share"] for each in figures if each.get("removed_share") is not None]
    return f"{100 * np.mean(shares):.2f} %" if shares else ""
