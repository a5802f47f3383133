"""The rows of docs/RESULTS.md: what each student is trained with. Each recipe is the flags of `gistcache train`."""

from __future__ import annotations

from typing import Literal, NamedTuple

Task = Literal["Banking77", "docs"]
Group = Literal["choosing", "best", "as they are", "main", "one technique", "students"]

SEEDS = (0, 1, 2)
# About one pass over the pairs.
PLANS: dict[Task, tuple[str, ...]] = {
    task: tuple(f"--batch-size 64 --max-steps {steps} --epochs 10 --learning-rate 1e-4".split())
    for task, steps in (("Banking77", 150), ("docs", 47))
}
BOTH: tuple[Task, ...] = ("Banking77", "docs")


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
    tasks: tuple[Task, ...] = BOTH

    @property
    def seeds(self) -> tuple[int, ...]:
        """Choosing looks at one seed; a model as it is has none."""
        return SEEDS[:1] if self.flags is None or self.group in ("choosing", "best") else SEEDS


def recipes(group: Group, flags: dict[str, str], tasks: tuple[Task, ...] = ("Banking77",)) -> list[Recipe]:
    """Rows of a part of the page, by name."""
    return [Recipe(name, group, tuple(line.split()), tasks=tasks) for name, line in flags.items()]


def last_of_each(*line: object) -> list[object]:
    """Flags and their values, where they take some; of a repeated flag, the later."""
    flags: dict[object, list[object]] = {}
    values: list[object] = []
    for word in line:
        if str(word).startswith("--"):
            flags[word] = values = []
        else:
            values.append(word)
    return [word for flag, values in flags.items() for word in (flag, *values)]


UNGUIDED, NEIGHBORHOOD = "--loss unguided", "--judge neighborhood"
AT_5 = "--temperature 0.05"
SLOW = "--learning-rate 2e-5"
JUDGES = {"paper": "", "neighborhood": NEIGHBORHOOD, "unguided": UNGUIDED}
# Looked at on the held-out training questions alone.
CHOOSING = recipes(
    "choosing",
    {
        f"{name}, temperature {temperature}, slow": f"{flags} --temperature {temperature} {SLOW}"
        for temperature in (0.02, 0.05, 0.1)
        for name, flags in JUDGES.items()
    }
    | {
        "neighborhood, 0.2 below its threshold, slow": f"{NEIGHBORHOOD} --margin 0.2 {AT_5} {SLOW}",
        "neighborhood, 0.4 below its threshold, slow": f"{NEIGHBORHOOD} --margin 0.4 {AT_5} {SLOW}",
        "unguided, temperature 0.05": f"{UNGUIDED} {AT_5}",
        "unguided, temperature 0.1": f"{UNGUIDED} --temperature 0.1",
        "unguided, temperature 0.2": f"{UNGUIDED} --temperature 0.2",
        "paper, temperature 0.05": AT_5,
        "neighborhood, 0.4 below its threshold": f"{NEIGHBORHOOD} --margin 0.4 {AT_5}",
        "neighborhood, 0.8 below its threshold": f"{NEIGHBORHOOD} --margin 0.8 {AT_5}",
        "static, rate 3e-3": f"{AT_5} --static --learning-rate 3e-3",
        "static, rate 1e-2": f"{AT_5} --static --learning-rate 1e-2",
        "static, rate 3e-2": f"{AT_5} --static --learning-rate 3e-2",
    },
)

# Mostly twice as long: each judge alone, with terms that learn from the guide's scores, and gentler.
LONGER = f"--max-steps 280 {AT_5}"
# The best of those, and around it one thing changed in each.
REGRESSION_20 = f"{NEIGHBORHOOD} {LONGER} --regression-weight 20"
BEST = recipes(
    "best",
    {
        "longer, unguided": f"{UNGUIDED} --max-steps 280 --temperature 0.1",
        "longer, paper": LONGER,
        "longer, neighborhood": f"{NEIGHBORHOOD} {LONGER}",
        "longer, paper, KL": f"{LONGER} --kl-weight 1",
        "longer, paper, KL three times": f"{LONGER} --kl-weight 3",
        "longer, paper, 0.05 below, KL": f"{LONGER} --kl-weight 1 --margin 0.05",
        "longer, neighborhood, KL": f"{NEIGHBORHOOD} {LONGER} --kl-weight 1",
        "three layers, longer, paper, KL": f"{LONGER} --kl-weight 1 --layers 3",
        "longer, neighborhood, KL, half the rate": f"{NEIGHBORHOOD} {LONGER} --learning-rate 5e-5 --kl-weight 1",
        "longer, paper, temperature 0.02": "--max-steps 280 --temperature 0.02",
        "longer, paper, KL, against positives only": f"{LONGER} --kl-weight 1 --no-contrast-anchors"
        " --no-contrast-positives",
        "longer, paper, KL, LoRA": f"{LONGER} --kl-weight 1 --lora-rank 16 --learning-rate 1e-3",
        "560 steps at half the rate, paper, KL": f"--max-steps 560 {AT_5} --kl-weight 1 --learning-rate 5e-5",
        "hard batches, a neighbour a pair, neighborhood, 0.4 below": f"{NEIGHBORHOOD} --margin 0.4 {AT_5} --hardness 1",
        "paper, regression five times": f"{AT_5} --regression-weight 5",
        "paper, regression 20 times": f"{AT_5} --regression-weight 20",
        "longer, paper, regression 20 times": f"{LONGER} --regression-weight 20",
        "neighborhood, regression 20 times": f"{NEIGHBORHOOD} {AT_5} --regression-weight 20",
        "longer, neighborhood, regression 20 times": REGRESSION_20,
        "longer, neighborhood, regression 60 times": f"{NEIGHBORHOOD} {LONGER} --regression-weight 60",
    }
    | {
        f"longer, neighborhood, regression 20 times, {name}": f"{REGRESSION_20} {flags}"
        for name, flags in {
            "temperature 0.03": "--temperature 0.03",
            "temperature 0.1": "--temperature 0.1",
            "half the rate": "--learning-rate 5e-5",
            "twice the rate": "--learning-rate 2e-4",
            "batches of 128": "--batch-size 128",
            "KL 0.3": "--kl-weight 0.3",
            "KL": "--kl-weight 1",
            "hard batches": "--hardness 1",
        }.items()
    },
)

PAPER = Recipe("guided as the paper has it", "main", tuple(AT_5.split()))
MAIN = [
    Recipe("base model", "as they are"),
    Recipe("the guide itself", "as they are", model="all-mpnet-base-v2"),
    *recipes("main", {"unguided": f"{UNGUIDED} --temperature 0.1"}, BOTH),
    PAPER,
    *recipes(
        "main",
        {
            "judge of pairs by pairs": f"{NEIGHBORHOOD} --margin 0.4 {AT_5}",
            "judge of pairs by pairs, first quartile": f"{NEIGHBORHOOD} --judge-quantile 0.25 {AT_5}",
        },
        BOTH,
    ),
    *recipes(
        "main",
        {
            "unguided, two passes": f"{UNGUIDED} --max-steps 280 --temperature 0.1",
            "guided as the paper has it, two passes": LONGER,
            "judge of pairs by pairs at its own threshold, two passes": f"{NEIGHBORHOOD} {LONGER}",
            "the best recipe": REGRESSION_20,
            "the best recipe with the paper's judge": f"{LONGER} --regression-weight 20",
            "KL, two passes": f"{LONGER} --kl-weight 1",
            "KL, two passes, three layers": f"{LONGER} --kl-weight 1 --layers 3 --learning-rate 3e-4",
        },
    ),
    *recipes(
        "main",
        {
            "KL, two passes over the docs pairs": f"--max-steps 94 {AT_5} --kl-weight 1",
            "the best recipe over the docs pairs": f"{NEIGHBORHOOD} --max-steps 94 {AT_5} --regression-weight 20",
        },
        ("docs",),
    ),
]
ONE_TECHNIQUE = recipes(
    "one technique",
    {
        "hard negatives, two a pair": f"{AT_5} --hard-negatives 2",
        "hard batches": f"{AT_5} --hardness 3",
        "KL": f"{AT_5} --kl-weight 1",
        "MarginMSE on hard negatives": f"{AT_5} --hard-negatives 2 --margin-mse-weight 10",
        "regression onto the guide": f"{AT_5} --regression-weight 5",
        "consistency filtering": f"{AT_5} --keep-positive-rank 100",
    },
    BOTH,
)
# Trained as the paper's student is, at rates that suit them.
STUDENTS = recipes(
    "students",
    {
        "three layers": f"{AT_5} --layers 3 --learning-rate 3e-4",
        "adapters": f"{AT_5} --lora-rank 16 --learning-rate 1e-3",
        "three sizes of embeddings": f"{AT_5} --matryoshka 128,64",
        "static": f"{AT_5} --static --learning-rate 1e-2",
    },
)
RECIPES = [*CHOOSING, *BEST, *MAIN, *ONE_TECHNIQUE, *STUDENTS]

# Measured before they were taken out of the product: the page shows them, and nothing trains them again.
SOFT = f"{NEIGHBORHOOD} --judge-softness 0.2"
NO_LONGER_OFFERED = recipes(
    "choosing",
    {
        "neighborhood, soft by 0.2, slow": f"{SOFT} {AT_5} {SLOW}",
        "neighborhood, soft by 0.2, 0.4 below, slow": f"{SOFT} --margin 0.4 {AT_5} {SLOW}",
    },
)
NO_LONGER_OFFERED += recipes("one technique", {"two guides": AT_5}, BOTH)
