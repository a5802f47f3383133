"""The tables of the report: texts and figures in rows. Everything is data; the page inserts it as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ...shared.types import PRIMARY_METRIC
from .batches import FalseNegative, NearDuplicate
from .sample import Excerpt, ScoredPairs, clipped
from .training_runs import Run

CELL_BYTES = 400
NAME_BYTES = 100
ALIKE_SHOWN = 80  # characters

Value = str | float | None
Texts = dict[int, Excerpt]


@dataclass(frozen=True)
class Column:
    """A column: of texts, or of numbers with so many digits after the point."""

    name: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """A table with its place on the page; ``note`` says how to read it and what it is of.

    Attributes:
        sorted_by: The number of the column that the page sorts it by at first, the greatest on top.
    """

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: list[list[Value]]
    sorted_by: int = 0

    @property
    def json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {"digits": [column.digits for column in self.columns], "rows": self.rows}


def mislabelled(worst: ScoredPairs, texts: Texts) -> Table:
    """Pairs whose positive is far down the guide's ranking."""
    columns = [*_scores("positive score", "closest score"), *map(Column, ("anchor", "positive", "closest instead"))]
    rows = zip(
        worst.ranks.tolist(),
        worst.scores.tolist(),
        _or_none(worst.closest_scores),
        _cells(worst.anchors, texts),
        _cells(worst.positives, texts),
        _cells(worst.closest_ids, texts),
        strict=True,
    )
    return Table(
        "mislabelled",
        "Pairs that look mislabelled",
        "Of all pairs those with the most documents above the positive in the guide's ranking, and beside each the "
        "closest document that is no known positive.",
        [Column("rank", 0), *columns],
        [list(row) for row in rows],
    )


def false_negatives(found: Sequence[FalseNegative], sample: ScoredPairs, texts: Texts, size: int) -> Table:
    """What random batches would have pushed apart."""
    columns = [*_scores("score", "positive score"), *map(Column, ("anchor", "its positive", "pushed away"))]
    rows = [
        [each.score, float(sample.scores[each.pair]), *_cells(ids, texts)]
        for each in found
        for ids in [(sample.anchors[each.pair], sample.positives[each.pair], sample.positives[each.other])]
    ]
    return Table(
        "false-negatives",
        "False negatives that a random batch would have pushed apart",
        f"Positives of other pairs that fell into one batch of {size:,} with the anchor and that the guide scores "
        "above the anchor's own positive: one an anchor, the highest score first, of the seeded random batches above.",
        columns,
        rows,
    )


def near_duplicates(found: Sequence[NearDuplicate], queries: int, texts: Texts) -> Table:
    """Different texts that are nearly the same."""
    columns = [Column("score", 4), *map(Column, ("roles", "one", "other"))]
    rows: list[list[Value]] = [
        [each.score, _role(each.one, queries) + ", document", *_from_difference(texts[each.one], texts[each.other])]
        for each in found
    ]
    return Table(
        "near-duplicates",
        "Near-duplicates",
        "The different texts with the highest guide scores among each sampled anchor and its ten closest stored "
        "documents. Texts that begin alike are shown from where they part.",
        columns,
        rows,
    )


def final_figures(runs: Sequence[Run]) -> Table:
    """What came of each run."""
    columns = (
        Column("run"),
        Column("student"),
        Column("steps", 0),
        Column("million parameters", 1),
        Column("mean loss", 3),
        Column(f"{PRIMARY_METRIC} before", 4),
        Column(f"{PRIMARY_METRIC} after", 4),
        Column("removed cells, %", 2),
        Column("training, s", 0),
        Column("peak memory, MB", 0),
        Column("index"),
    )
    scales = {"parameters": 1e-6, "removed": 100, "peak memory": 1e-6}
    rows: list[list[Value]] = [
        [
            clipped(run.name, NAME_BYTES),
            clipped(run.student, NAME_BYTES),
            run.steps,
            *(None if value is None else value * scales.get(name, 1) for name, value in run.figures.items()),
            "this one" if run.same_index else "another",
        ]
        for run in runs
    ]
    best = next(number for number, column in enumerate(columns) if column.name.endswith("after"))
    return Table("run-figures", "Final figures", "Held-out pairs before and after training.", columns, rows, best)


def _scores(*names: str) -> list[Column]:
    """Columns of guide scores."""
    return [Column(name, 3) for name in names]


def _role(text_id: int, queries: int) -> str:
    return "anchor" if text_id < queries else "document"


def _from_difference(one: Excerpt, other: Excerpt) -> list[Value]:
    """Two texts, shown from shortly before their first difference where that would not be seen."""
    alike = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(one.text, other.text, strict=False)))
    start = max(0, alike - ALIKE_SHOWN) if alike > 2 * ALIKE_SHOWN else 0
    return [clipped("…" * (start > 0) + each.text[start:], CELL_BYTES) for each in (one, other)]


def _cells(ids: Any, texts: Texts) -> list[Value]:  # noqa: ANN401 (ids in any sequence)
    return [clipped(texts[number].text, CELL_BYTES) if number >= 0 else None for number in map(int, ids)]


def _or_none(values: Any) -> list[float | None]:  # noqa: ANN401 (an array of floats)
    return [None if value != value else float(value) for value in values]
