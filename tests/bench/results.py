"""The measurement behind docs/RESULTS.md: what guide, judge and each technique are worth, three seeds each.

    python tests/bench/results.py                       everything; days on two cores
    python tests/bench/results.py --group choosing      one part of it
    python tests/bench/results.py --share 1/2           every second run: two processes, a thread each
    python tests/bench/results.py --at-once 15          so many runs at a time, for one GPU and many cores
    python tests/bench/results.py --page                the page from what has been measured

A recipe is trained twice for each seed: on Banking77's pairs and on the docs pairs, with all-mpnet-base-v2 as the
guide. Every figure is appended to ``results.jsonl`` beside this file, keyed by data, models and flags that made it: an
interrupted measurement goes on where it stopped. After a change of code that could change figures, delete that file. A
tenth of the training questions is held out of the pairs, for choosing among recipes; the test questions choose nothing.

A machine that only trains needs no guide: where its folder is not there, finished indexes in ``--work`` are used as
they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from at_once import run_at_once
from banking77_scores import Question, accuracy, make_pairs, read_questions
from bench_data import GUIDE as GUIDE_FOLDER
from bench_data import MAX_LENGTH, PUBLIC, STUDENT, gistcache, gistcache_here
from gistcache.shared.evaluation.benchmarks import evaluate_sts
from gistcache.shared.evaluation.retrieval import RetrievalSet
from gistcache.shared.models.device import pick_device
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.shared.storage.files import sha256_of
from interleaved import REPOSITORY, say
from recipes import PLANS, RECIPES, SEEDS, Recipe, Task, last_of_each
from results_file import Figures, Results
from results_page import page

GUIDE = "all-mpnet-base-v2"
MODELS = {"all-MiniLM-L6-v2": STUDENT, GUIDE: GUIDE_FOLDER}
HELD_OUT = 0.1
DRAWS = 10
COSTS = ("peak_memory_bytes", "parameters", "model_bytes", "texts_per_second")
FILES = ("banking77_train.csv", "banking77_test.csv", "stsb_en_dev.csv")
STS_TEST = "stsb_en_test.csv"
RESULTS = Path(__file__).parent / "results.jsonl"


class Measurement:
    """Data, indexes and results of one measurement."""

    COST_STEPS, COST_ROUNDS = 25, 3

    def __init__(self, data: Path, docs: Path, work: Path, *, own_processes: bool = True) -> None:
        self.data, self.docs, self.work = data, docs, work
        self.train_by = gistcache if own_processes else gistcache_here
        self._checked: set[Task] = set()
        work.mkdir(parents=True, exist_ok=True)
        self.train, self.test = (read_questions(data / name) for name in FILES[:2])
        self.fit, self.held_out = split(self.train)
        pairs = work / "banking77.jsonl"
        rows = make_pairs(self.fit, seed=0)
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.pairs = {"Banking77": pairs, "docs": docs / "train.parquet"}
        self.results = Results(RESULTS)

    def index(self, task: Task) -> Path:
        """The task's guide index, built on the first call where the guide is here."""
        out = self.work / f"index-{task}-mpnet"
        if task not in self._checked and Path(GUIDE_FOLDER).exists():
            gistcache("index", self.pairs[task], "--guide", GUIDE_FOLDER, "--out", out, "--max-length", MAX_LENGTH)
        self._checked.add(task)
        return out

    def figures(self, recipe: Recipe, seed: int, task: Task) -> Figures:
        """Scores, seconds and memory of one student."""
        plan = PLANS[task] if recipe.flags is not None else None
        made_by = {"recipe": recipe.name, "flags": recipe.flags, "model": recipe.model, "seed": seed, "task": task}
        made_by |= {"pairs": sha256_of(self.pairs[task]), "plan": plan}
        return self.results.get_or_measure(made_by, lambda: self._measured(recipe, seed, task))

    def by_seed(self, recipe: Recipe, task: Task) -> dict[int, Figures]:
        """What has been measured of a recipe, by seed."""
        plan = None if recipe.flags is None else list(PLANS[task])
        return {
            made_by["seed"]: figures
            for made_by, figures in self.results.lines
            if _is_of(made_by, recipe, task) and made_by["plan"] == plan
        }

    def measured(self, recipe: Recipe, task: Task) -> list[Figures]:
        """The same without the seeds."""
        return list(self.by_seed(recipe, task).values())

    def costs(self, recipe: Recipe, number: int) -> Figures:
        """Time, memory and size of a short run on Banking77's pairs; for a machine that does nothing else."""
        made_by = {"recipe": recipe.name, "flags": recipe.flags, "seed": number, "task": "costs"}

        def make() -> Figures:
            figures = self._train(recipe, 0, "Banking77", ("--max-steps", self.COST_STEPS))
            return {name: figures[name] for name in COSTS} | {"seconds_a_step": figures["seconds"] / self.COST_STEPS}

        return self.results.get_or_measure(made_by, make)

    def measured_costs(self, recipe: Recipe) -> list[Figures]:
        """What has been measured of a recipe's costs."""
        return [figures for made_by, figures in self.results.lines if _is_of(made_by, recipe, "costs")]

    def _measured(self, recipe: Recipe, seed: int, task: Task) -> Figures:
        if recipe.flags is None:
            return self._scores(MODELS[recipe.model], recipe, task)
        with tempfile.TemporaryDirectory(dir=self.work) as out:
            figures = self._train(recipe, seed, task, (), out)
            return self._scores(out, recipe, task) | figures

    def _train(self, recipe: Recipe, seed: int, task: Task, more: Sequence[object], out: str | None = None) -> Figures:
        """Train a student; the figures of its ``metrics.json``."""
        if out is None:
            with tempfile.TemporaryDirectory(dir=self.work) as scratch:
                return self._train(recipe, seed, task, more, scratch)
        flags = last_of_each(*PLANS[task], *(recipe.flags or ()), *more)
        common = ("--student", STUDENT, "--out", out, "--seed", seed, "--max-length", MAX_LENGTH)
        self.train_by("train", "--index", self.index(task), *common, *flags)
        metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))
        figures = {name: metrics[name] for name in ("removed_share", "steps", *COSTS)}
        return figures | {"seconds": metrics["seconds"]["train"]}

    def _scores(self, locator: str, recipe: Recipe, task: Task) -> Figures:
        """What is for testing is left alone while recipes are chosen."""
        model = load_model(find_model(locator), device=pick_device("auto"), max_length=MAX_LENGTH).eval()
        sts = 100 * evaluate_sts(model, str(self.data / FILES[2]))["spearman"]
        if task == "docs":
            return {"sts": sts, **RetrievalSet.read((str(self.docs / "heldout.parquet"),)).evaluate(model)}
        if recipe.group in ("choosing", "best"):
            return {"sts": sts, "held out": accuracy(model, self.fit, self.held_out, DRAWS)[0]}
        tested = {"test": accuracy(model, self.train, self.test, DRAWS)[0]}
        if (sts_test := self.data / STS_TEST).exists():
            tested["sts test"] = 100 * evaluate_sts(model, str(sts_test))["spearman"]
        return {"sts": sts, **tested}


def _is_of(made_by: Figures, recipe: Recipe, task: str) -> bool:
    flags = list(recipe.flags) if recipe.flags is not None else None
    return (made_by["recipe"], made_by["flags"], made_by["task"]) == (recipe.name, flags, task)


def split(questions: list[Question]) -> tuple[list[Question], list[Question]]:
    """Training questions, and a tenth of each intent's, held out."""
    random, order = np.random.default_rng(7), {}
    for place in random.permutation(len(questions)):
        order.setdefault(questions[place].intent, []).append(int(place))
    held_out = {place for places in order.values() for place in places[: round(HELD_OUT * len(places))]}
    texts = {questions[place].text.strip() for place in held_out}
    fit = [question for place, question in enumerate(questions) if question.text.strip() not in texts]
    return fit, [questions[place] for place in sorted(held_out)]


def measure(measurement: Measurement, runs: list[tuple[Recipe, int, Task]], at_once: int) -> None:
    """Measure the runs, several at a time where that is asked for."""
    if at_once == 1:
        for run in runs:
            measurement.figures(*run)
        return
    for task in {task for recipe, _, task in runs if recipe.flags is not None}:
        measurement.index(task)  # before the processes, which would all begin to build it
    begun = time.perf_counter()
    failed = run_at_once(measurement.figures, runs, at_once)
    say(f"{len(runs) - failed} of {len(runs)} runs in {time.perf_counter() - begun:.0f} s, {at_once} at a time")
    if failed:
        sys.exit(f"{failed} of {len(runs)} runs failed; what they said is above\n  to do: run the command again")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=PUBLIC, help="the public data")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "data" / "docs")
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "runs" / "results", help="folder of all files that it writes"
    )
    parser.add_argument("--group", nargs="+", help="measure these parts alone; of each task and seed, in this order")
    parser.add_argument("--recipe", nargs="+", default=[""], help="measure recipes alone whose name holds one of these")
    parser.add_argument("--share", default="1/1", help="I/N: the I-th of every N runs")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time, costs apart")
    parser.add_argument("--costs", action="store_true", help="measure time, memory and size, on an idle machine")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    args = parser.parse_args()
    needed = [args.data / name for name in FILES] + [args.docs / "train.parquet"]
    if not Path(GUIDE_FOLDER).exists():
        needed += [args.work / f"index-{task}-mpnet" / "manifest.json" for task in PLANS]
    if missing := [str(path) for path in needed if not path.exists()]:
        sys.exit(f"not there: {', '.join(missing)}\n  to do: see docs/RESULTS.md")
    return args


def main() -> None:
    args = arguments()
    measurement = Measurement(args.data, args.docs, args.work, own_processes=args.costs or args.at_once == 1)
    requested = [each for each in RECIPES if any(words in each.name for words in args.recipe)]
    if args.group:
        requested = [each for group in args.group for each in requested if each.group == group]
    guide_away = not Path(GUIDE_FOLDER).exists()
    runs = [
        (recipe, seed, task)
        for task in PLANS  # one seed of every recipe before the next: interrupted, the page still has each row
        for seed in SEEDS
        for recipe in requested
        if task in recipe.tasks and seed in recipe.seeds and not (recipe.model == GUIDE and guide_away)
    ]
    mine, shares = map(int, args.share.split("/"))
    if not (args.page or args.costs):
        measure(measurement, runs[mine - 1 :: shares], args.at_once)
    trained = [each for each in requested if each.group not in ("choosing", "best", "as they are")]
    trained = [each for each in trained if "Banking77" in each.tasks]
    for number in range(measurement.COST_ROUNDS) if args.costs else ():
        for recipe in trained:  # by turns: what else the machine does falls on all alike
            measurement.costs(recipe, number)
    if args.page or args.costs or (args.group is None and args.recipe == [""] and shares == 1):
        text = page(measurement)
        (REPOSITORY / "docs" / "RESULTS.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
