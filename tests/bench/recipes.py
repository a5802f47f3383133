"""The rows of docs/RESULTS.md: what each student is trained with. Each recipe is the flags of `gistcache train`."""

from __future__ import annotations

from typing import Literal, NamedTuple

Task = Literal["Banking77", "docs"]
Group = Literal["choosing", "best", "as they are", "main", "one technique", "students"]

SEEDS = (0, 1, 2)
# About one pass over the pairs.
PLANS: dict[Task, tuple[str, ...]] = {
    "Banking77": ("--batch-size", "64", "--max-steps", "150", "--epochs", "10", "--learning-rate", "1e-4"),
    "docs": ("--batch-size", "64", "--max-steps", "47", "--epochs", "10", "--learning-rate", "1e-4"),
}
UNGUIDED, NEIGHBORHOOD = ("--loss", "unguided"), ("--judge", "neighborhood")
BANKING_ONLY: tuple[Task, ...] = ("Banking77",)
DOCS_ONLY: tuple[Task, ...] = ("docs",)


class Recipe(NamedTuple):
    """One row.

    Attributes:
        name: As the table shows it.
        group: Which part of the page it belongs to.
        flags: Of the training, in place of the plan's where both have one; None for a model as it is.
        model: Of a model as it is: its name.
        tasks: What it is trained on.
    """

    name: str
    group: Group
    flags: tuple[str, ...] | None = None
    model: str = "all-MiniLM-L6-v2"
    tasks: tuple[Task, ...] = ("Banking77", "docs")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Choosing looks at one seed; a model as it is has none."""
        return SEEDS[:1] if self.flags is None or self.group in ("choosing", "best") else SEEDS


def at(temperature: float) -> tuple[str, ...]:
    """A temperature's flags."""
    return ("--temperature", f"{temperature:g}")


def words(flags: str) -> tuple[str, ...]:
    """Flags as a command takes them."""
    return tuple(flags.split())


def last_of_each(*line: object) -> list[object]:
    """Flags and their values, where they take some; of a flag that is given twice, the later."""
    given: dict[object, list[object]] = {}
    values: list[object] = []
    for word in line:
        if str(word).startswith("--"):
            given[word] = values = []
        else:
            values.append(word)
    return [word for flag, values in given.items() for word in (flag, *values)]


# Looked at on the held-out training questions alone.
SLOW = ("--learning-rate", "2e-5")
JUDGES = {"paper": (), "neighborhood": NEIGHBORHOOD, "unguided": UNGUIDED}
CHOOSING = [
    Recipe(
        f"{name}, temperature {temperature:g}, slow", "choosing", (*flags, *at(temperature), *SLOW), tasks=BANKING_ONLY
    )
    for temperature in (0.02, 0.05, 0.1)
    for name, flags in JUDGES.items()
]
CHOOSING += [
    Recipe(name, "choosing", (*NEIGHBORHOOD, *flags, *at(0.05), *SLOW), tasks=BANKING_ONLY)
    for name, flags in {
        "neighborhood, 0.2 below its threshold, slow": ("--margin", "0.2"),
        "neighborhood, 0.4 below its threshold, slow": ("--margin", "0.4"),
    }.items()
]
CHOOSING += [
    Recipe(name, "choosing", flags, tasks=BANKING_ONLY)
    for name, flags in {
        "unguided, temperature 0.05": (*UNGUIDED, *at(0.05)),
        "unguided, temperature 0.1": (*UNGUIDED, *at(0.1)),
        "unguided, temperature 0.2": (*UNGUIDED, *at(0.2)),
        "paper, temperature 0.05": at(0.05),
        "neighborhood, 0.4 below its threshold": (*NEIGHBORHOOD, "--margin", "0.4", *at(0.05)),
        "neighborhood, 0.8 below its threshold": (*NEIGHBORHOOD, "--margin", "0.8", *at(0.05)),
    }.items()
]

CHOOSING += [
    Recipe(f"static, rate {rate}", "choosing", (*at(0.05), "--static", "--learning-rate", rate), tasks=BANKING_ONLY)
    for rate in ("3e-3", "1e-2", "3e-2")
]

# Mostly twice as long: each judge alone, with terms that learn from the guide's scores, and gentler.
LONGER = ("--max-steps", "280", *at(0.05))
BEST = [
    Recipe(name, "best", flags, tasks=BANKING_ONLY)
    for name, flags in {
        "longer, unguided": (*UNGUIDED, "--max-steps", "280", *at(0.1)),
        "longer, paper": LONGER,
        "longer, neighborhood": (*NEIGHBORHOOD, *LONGER),
        "longer, paper, KL": (*LONGER, "--kl-weight", "1"),
        "longer, paper, KL three times": (*LONGER, "--kl-weight", "3"),
        "longer, paper, 0.05 below, KL": (*LONGER, "--kl-weight", "1", "--margin", "0.05"),
        "longer, neighborhood, KL": (*NEIGHBORHOOD, *LONGER, "--kl-weight", "1"),
        "three layers, longer, paper, KL": (*LONGER, "--kl-weight", "1", "--layers", "3"),
        "longer, neighborhood, KL, half the rate": (
            *NEIGHBORHOOD,
            *LONGER,
            *words("--learning-rate 5e-5 --kl-weight 1"),
        ),
        "longer, paper, temperature 0.02": ("--max-steps", "280", *at(0.02)),
        "longer, paper, KL, against positives only": (
            *LONGER,
            *words("--kl-weight 1 --no-contrast-anchors --no-contrast-positives"),
        ),
        "longer, paper, KL, LoRA": (*LONGER, *words("--kl-weight 1 --lora-rank 16 --learning-rate 1e-3")),
        "560 steps at half the rate, paper, KL": words(
            "--max-steps 560 --temperature 0.05 --kl-weight 1 --learning-rate 5e-5"
        ),
        "hard batches, a neighbour a pair, neighborhood, 0.4 below": (
            *NEIGHBORHOOD,
            *words("--margin 0.4 --temperature 0.05 --hardness 1"),
        ),
        "paper, regression five times": (*at(0.05), *words("--regression-weight 5")),
        "paper, regression 20 times": (*at(0.05), *words("--regression-weight 20")),
        "longer, paper, regression 20 times": (*LONGER, *words("--regression-weight 20")),
        "neighborhood, regression 20 times": (*NEIGHBORHOOD, *at(0.05), *words("--regression-weight 20")),
        "longer, neighborhood, regression 20 times": (*NEIGHBORHOOD, *LONGER, *words("--regression-weight 20")),
        "longer, neighborhood, regression 60 times": (*NEIGHBORHOOD, *LONGER, *words("--regression-weight 60")),
    }.items()
]

# Around the best of those: one thing changed in each.
REGRESSION_20 = (*NEIGHBORHOOD, *LONGER, "--regression-weight", "20")
BEST += [
    Recipe(f"longer, neighborhood, regression 20 times, {name}", "best", (*REGRESSION_20, *flags), tasks=BANKING_ONLY)
    for name, flags in {
        "temperature 0.03": at(0.03),
        "temperature 0.1": at(0.1),
        "half the rate": words("--learning-rate 5e-5"),
        "twice the rate": words("--learning-rate 2e-4"),
        "batches of 128": words("--batch-size 128"),
        "KL 0.3": words("--kl-weight 0.3"),
        "KL": words("--kl-weight 1"),
        "hard batches": words("--hardness 1"),
    }.items()
]

PAPER = Recipe("guided as the paper has it", "main", at(0.05))
MAIN = [
    Recipe("base model", "as they are"),
    Recipe("the guide itself", "as they are", model="all-mpnet-base-v2"),
    Recipe("unguided", "main", (*UNGUIDED, *at(0.1))),
    PAPER,
    Recipe("judge of pairs by pairs", "main", (*NEIGHBORHOOD, "--margin", "0.4", *at(0.05))),
    Recipe("judge of pairs by pairs, first quartile", "main", (*NEIGHBORHOOD, "--judge-quantile", "0.25", *at(0.05))),
]
MAIN += [
    Recipe(f"{name}, two passes", "main", flags, tasks=BANKING_ONLY)
    for name, flags in {
        "unguided": (*UNGUIDED, "--max-steps", "280", *at(0.1)),
        "guided as the paper has it": LONGER,
        "judge of pairs by pairs at its own threshold": (*NEIGHBORHOOD, *LONGER),
    }.items()
]
TWO_WITH_KL = (*LONGER, "--kl-weight", "1")
MAIN += [
    Recipe("the best recipe", "main", (*NEIGHBORHOOD, *LONGER, *words("--regression-weight 20")), tasks=BANKING_ONLY),
    Recipe(
        "the best recipe with the paper's judge",
        "main",
        (*LONGER, *words("--regression-weight 20")),
        tasks=BANKING_ONLY,
    ),
    Recipe("KL, two passes", "main", TWO_WITH_KL, tasks=BANKING_ONLY),
    Recipe(
        "KL, two passes, three layers",
        "main",
        (*TWO_WITH_KL, "--layers", "3", "--learning-rate", "3e-4"),
        tasks=BANKING_ONLY,
    ),
    Recipe(
        "KL, two passes over the docs pairs",
        "main",
        (*words("--max-steps 94"), *at(0.05), *words("--kl-weight 1")),
        tasks=DOCS_ONLY,
    ),
    Recipe(
        "the best recipe over the docs pairs",
        "main",
        (*NEIGHBORHOOD, *words("--max-steps 94"), *at(0.05), *words("--regression-weight 20")),
        tasks=DOCS_ONLY,
    ),
]
ONE_TECHNIQUE = [
    Recipe(name, "one technique", (*at(0.05), *flags))
    for name, flags in {
        "hard negatives, two a pair": ("--hard-negatives", "2"),
        "hard batches": ("--hardness", "3"),
        "KL": ("--kl-weight", "1"),
        "MarginMSE on hard negatives": ("--hard-negatives", "2", "--margin-mse-weight", "10"),
        "regression onto the guide": ("--regression-weight", "5"),
        "consistency filtering": ("--keep-positive-rank", "100"),
    }.items()
]
# Trained as the paper's student is, at rates that suit them.
STUDENTS = [
    Recipe(name, "students", (*at(0.05), *words(flags)), tasks=BANKING_ONLY)
    for name, flags in {
        "three layers": "--layers 3 --learning-rate 3e-4",
        "adapters": "--lora-rank 16 --learning-rate 1e-3",
        "three sizes of embeddings": "--matryoshka 128,64",
        "static": "--static --learning-rate 1e-2",
    }.items()
]
RECIPES = [*CHOOSING, *BEST, *MAIN, *ONE_TECHNIQUE, *STUDENTS]
