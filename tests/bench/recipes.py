"""The rows of docs/RESULTS.md: what each student is trained with. Each recipe is the flags of `gistcache train`."""

from __future__ import annotations

from typing import NamedTuple

PLAN = ("--batch-size", "64", "--max-steps", "150", "--epochs", "10", "--learning-rate", "2e-5")
SEEDS = (0, 1, 2)
UNGUIDED, NEIGHBORHOOD = ("--loss", "unguided"), ("--judge", "neighborhood")


class Recipe(NamedTuple):
    """One row.

    Attributes:
        name: As the table shows it.
        flags: Of the training; None for a model as it is.
        group: Which part of the page it belongs to.
        model: Of a model as it is: its name.
    """

    name: str
    flags: tuple[str, ...] | None
    group: str
    model: str = "all-MiniLM-L6-v2"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("Banking77",) if self.group == "choosing" else ("Banking77", "docs")


def at(temperature: float) -> tuple[str, ...]:
    return ("--temperature", f"{temperature:g}")


BASE = Recipe("base model", None, "main")
GUIDE = Recipe("the guide itself, all-mpnet-base-v2", None, "main", "all-mpnet-base-v2")

# One seed each, looked at on the held-out training questions alone.
CHOOSING = [
    Recipe(f"{name}, temperature {temperature:g}", (*flags, *at(temperature)), "choosing")
    for name, flags in {"unguided": UNGUIDED, "paper": (), "neighborhood": NEIGHBORHOOD}.items()
    for temperature in (0.02, 0.05, 0.1)
]

MAIN = [BASE, GUIDE]
RECIPES = [*CHOOSING, *MAIN]
