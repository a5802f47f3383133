"""The measurement behind docs/RESULTS.md: what guide, judge and each technique are worth, three seeds each.

    python tests/bench/results.py                       everything; hours on two cores
    python tests/bench/results.py --group choosing      one part of it
    python tests/bench/results.py --page                the page from what has been measured

A recipe is trained twice for each seed: on Banking77's pairs and on the docs pairs, with all-mpnet-base-v2 as the
guide. Every figure is appended to ``<work>/results.jsonl``, keyed by data, models and flags that made it: an
interrupted measurement goes on where it stopped. After a change of code, delete that file. A tenth of the training
questions is held out of the pairs, for choosing among recipes; the test questions choose nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from banking77_scores import Question, accuracy, make_pairs, read_questions
from bench_data import GUIDE as GUIDE_FOLDER
from bench_data import STUDENT, gistcache
from gistcache.shared.evaluation import RetrievalSet, evaluate_sts
from gistcache.shared.models import find_model, load_model
from gistcache.shared.parts import sha256_of
from interleaved import REPOSITORY, say
from recipes import PLAN, RECIPES, SEEDS, Recipe
from results_page import page

MODELS = {"all-MiniLM-L6-v2": STUDENT, "all-mpnet-base-v2": GUIDE_FOLDER}
HELD_OUT = 0.1
DRAWS = 10
FILES = ("banking77_train.csv", "banking77_test.csv", "stsb_en_dev.csv")
Figures = dict[str, Any]


class Results:
    """Figures by what made them, one JSON line each; a line cut short by a crash is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = dict(self._lines())

    def _lines(self) -> Iterator[tuple[str, Figures]]:
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                content = json.loads(line)
            except ValueError:
                continue
            yield key_of(content["made by"]), content["figures"]

    def keep_or_make(self, made_by: Figures, make: Callable[[], Figures]) -> Figures:
        key = key_of(made_by)
        if key not in self.found:
            self.found[key] = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"made by": made_by, "figures": self.found[key]}))
            say(f"{made_by['recipe']}, seed {made_by['seed']}, {made_by['task']}: {json.dumps(self.found[key])}")
        return self.found[key]


class Measurement:
    """Data, indexes and results of one measurement."""

    def __init__(self, data: Path, docs: Path, work: Path) -> None:
        self.data, self.docs, self.work = data, docs, work
        work.mkdir(parents=True, exist_ok=True)
        self.train, self.test = (read_questions(data / name) for name in FILES[:2])
        self.fit, self.held_out = split(self.train)
        pairs = work / "banking77.jsonl"
        rows = make_pairs(self.fit, seed=0)
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.pairs = {"Banking77": pairs, "docs": docs / "train.parquet"}
        self.results = Results(work / "results.jsonl")

    def index(self, task: str) -> Path:
        """The task's guide index, built on the first call."""
        out = self.work / f"index-{task}"
        flags = ["--eval-pairs", self.docs / "heldout.parquet"] if task == "docs" else []
        gistcache("index", self.pairs[task], "--guide", GUIDE_FOLDER, "--out", out, "--max-length", 128, *flags)
        return out

    def figures(self, recipe: Recipe, seed: int, task: str) -> Figures:
        """Scores, seconds and memory of one student."""
        made_by = {"recipe": recipe.name, "flags": recipe.flags, "model": recipe.model, "seed": seed, "task": task}
        keys = {"pairs": sha256_of(self.pairs[task]), "plan": PLAN if recipe.flags is not None else None}
        return self.results.keep_or_make(made_by | keys, lambda: self._measured(recipe, seed, task))

    def _measured(self, recipe: Recipe, seed: int, task: str) -> Figures:
        if recipe.flags is None:
            return self._scores(MODELS[recipe.model], task)
        out = self.work / "student"
        shutil.rmtree(out, ignore_errors=True)
        given = ["--index", self.index(task), "--student", STUDENT, "--out", out, "--seed", seed, "--max-length", 128]
        gistcache("train", *given, *PLAN, *recipe.flags)
        told = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        names = ("removed_share", "peak_memory_bytes", "parameters", "steps")
        return (
            self._scores(str(out), task) | {name: told[name] for name in names} | {"seconds": told["seconds"]["train"]}
        )

    def _scores(self, locator: str, task: str) -> Figures:
        model = load_model(find_model(locator), max_length=128).eval()
        sts = 100 * evaluate_sts(model, str(self.data / FILES[2]))["spearman"]
        if task == "docs":
            return {"sts": sts, **RetrievalSet.read((str(self.docs / "heldout.parquet"),)).evaluate(model)}
        held_out, _ = accuracy(model, self.fit, self.held_out, DRAWS)
        return {"sts": sts, "test": accuracy(model, self.train, self.test, DRAWS)[0], "held out": held_out}


def split(questions: list[Question]) -> tuple[list[Question], list[Question]]:
    """Training questions, and a tenth of each intent's, held out."""
    random, order = np.random.default_rng(7), {}
    for place in random.permutation(len(questions)):
        order.setdefault(questions[place].intent, []).append(int(place))
    held = {place for places in order.values() for place in places[: round(HELD_OUT * len(places))]}
    texts = {questions[place].text.strip() for place in held}
    fit = [question for place, question in enumerate(questions) if question.text.strip() not in texts]
    return fit, [questions[place] for place in sorted(held)]


def key_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="the public data")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "data" / "docs")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "results", help="everything that is kept")
    parser.add_argument("--group", help="measure this part alone")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    given = parser.parse_args()
    needed = [given.data / name for name in FILES] + [given.docs / "train.parquet", Path(GUIDE_FOLDER)]
    if missing := [str(path) for path in needed if not path.exists()]:
        sys.exit(f"not there: {', '.join(missing)}\n  to do: see docs/RESULTS.md")
    return given


def main() -> None:
    given = arguments()
    measurement = Measurement(given.data, given.docs, given.work)
    for recipe in RECIPES if not given.page else ():
        if given.group in (None, recipe.group):
            for seed in SEEDS if recipe.flags is not None and recipe.group != "choosing" else SEEDS[:1]:
                for task in recipe.tasks:
                    measurement.figures(recipe, seed, task)
    text = page(measurement)
    (REPOSITORY / "docs" / "RESULTS.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
