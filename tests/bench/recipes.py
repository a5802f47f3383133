"""The rows of docs/TECHNIQUES.md: what each student is trained with. Each recipe is the flags of `gistcache train`."""

from __future__ import annotations

from typing import Literal, NamedTuple

Task = Literal["Banking77", "docs"]
Group = Literal["choosing", "best", "as they are", "main", "one technique"]

SEEDS = (0, 1, 2)
# About one pass over the pairs.
PLANS: dict[Task, tuple[str, ...]] = {
    "Banking77": ("--batch-size", "64", "--max-steps", "150", "--epochs", "10", "--learning-rate", "2e-5"),
    "docs": ("--batch-size", "64", "--max-steps", "47", "--epochs", "10", "--learning-rate", "2e-5"),
}
UNGUIDED, NEIGHBORHOOD = ("--loss", "unguided"), ("--judge", "neighborhood")
BANKING_ONLY: tuple[Task, ...] = ("Banking77",)


class Recipe(NamedTuple):
    """One row.

    Attributes:
        name: As the table shows it.
        group: Which part of the page it belongs to.
        flags: Of the training, in place of the plan's where both have one; None for a model as it is.
        model: Of a model as it is: its name.
        tasks: What it is trained on.
        second_guide: Whether all-MiniLM-L6-v2 is a second guide.
    """

    name: str
    group: Group
    flags: tuple[str, ...] | None = None
    model: str = "all-MiniLM-L6-v2"
    tasks: tuple[Task, ...] = ("Banking77", "docs")
    second_guide: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """Choosing looks at one seed; a model as it is has none."""
        return SEEDS[:1] if self.flags is None or self.group in ("choosing", "best") else SEEDS


def at(temperature: float) -> tuple[str, ...]:
    """A temperature's flags."""
    return ("--temperature", f"{temperature:g}")


# Looked at on the held-out training questions alone.
JUDGES = {"paper": (), "neighborhood": NEIGHBORHOOD, "unguided": UNGUIDED}
CHOOSING = [
    Recipe(f"{name}, temperature {temperature:g}", "choosing", (*flags, *at(temperature)), tasks=BANKING_ONLY)
    for temperature in (0.02, 0.05, 0.1)
    for name, flags in JUDGES.items()
]
CHOOSING += [
    Recipe(name, "choosing", (*NEIGHBORHOOD, *flags, *at(0.05)), tasks=BANKING_ONLY)
    for name, flags in {
        "neighborhood, 0.2 below its threshold": ("--margin", "0.2"),
        "neighborhood, 0.4 below its threshold": ("--margin", "0.4"),
        "neighborhood, soft by 0.2": ("--judge-softness", "0.2"),
        "neighborhood, soft by 0.2, 0.4 below": ("--judge-softness", "0.2", "--margin", "0.4"),
    }.items()
]

# Twice as long at five times the rate: each judge alone, and with terms that learn from the guide's scores.
LONGER = ("--max-steps", "280", "--learning-rate", "1e-4", *at(0.05))
BEST = [
    Recipe(name, "best", flags, tasks=BANKING_ONLY)
    for name, flags in {
        "longer, unguided, temperature 0.1": (*UNGUIDED, *LONGER, *at(0.1)),
        "longer, paper": LONGER,
        "longer": (*NEIGHBORHOOD, *LONGER),
        "longer, 0.4 below": (*NEIGHBORHOOD, *LONGER, "--margin", "0.4"),
        "longer, KL": (*NEIGHBORHOOD, *LONGER, "--kl-weight", "1"),
        "longer, paper, KL": (*LONGER, "--kl-weight", "1"),
        "longer, half the rate, KL": (*NEIGHBORHOOD, *LONGER, "--learning-rate", "5e-5", "--kl-weight", "1"),
    }.items()
]

MAIN = [
    Recipe("base model", "as they are"),
    Recipe("the guide itself", "as they are", model="all-mpnet-base-v2"),
    Recipe("unguided", "main", (*UNGUIDED, *at(0.05))),
    Recipe("guided as the paper has it", "main", at(0.05)),
    Recipe("judge of pairs by pairs", "main", (*NEIGHBORHOOD, *at(0.05))),
]
ONE_TECHNIQUE = [
    Recipe(name, "one technique", (*at(0.05), *flags), tasks=BANKING_ONLY)
    for name, flags in {
        "hard negatives, two a pair": ("--hard-negatives", "2"),
        "hard batches": ("--hardness", "3"),
        "KL": ("--kl-weight", "1"),
        "MarginMSE on hard negatives": ("--hard-negatives", "2", "--margin-mse-weight", "10"),
        "regression onto the guide": ("--regression-weight", "1"),
        "consistency filtering": ("--keep-positive-rank", "100"),
    }.items()
]
ONE_TECHNIQUE += [Recipe("two guides", "one technique", at(0.05), tasks=BANKING_ONLY, second_guide=True)]
RECIPES = [*CHOOSING, *BEST, *MAIN, *ONE_TECHNIQUE]
