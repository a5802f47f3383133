"""The measurement behind docs/RESULTS.md: guided against unguided students on Banking77, with two guides.

    python tests/bench/banking77.py                                          the whole of it; hours on two cores
    python tests/bench/banking77.py --pairs 500 --max-steps 3 --draws 1      a trial, which leaves docs/ alone

Every step is kept under --work, keyed by the data, models and settings that made it: an interrupted measurement goes on
where it stopped, and a finished one prints its tables at once. After a change of code, delete that folder. The
intents make the pairs and score; neither guide nor student sees them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from banking77_detector import MARGINS, ROUNDING_BATCHES, changed_by_rounding, detector_figures
from banking77_report import report
from banking77_scores import DRAW_SEED, QUESTIONS_PER_INTENT, accuracy, make_pairs, read_questions
from bench_data import STUDENT, gistcache
from gistcache.shared.evaluation import evaluate_sts
from gistcache.shared.index import GuideIndex
from gistcache.shared.models import find_model, fingerprint_files, load_model, pick_device
from gistcache.shared.parts import sha256_of
from gistcache.train.students import load_student
from interleaved import REPOSITORY, say
from results_file import Results, key_of

MINILM, MPNET = "all-MiniLM-L6-v2", "all-mpnet-base-v2"
LAYERS = (None, 3)
TEMPERATURES = (0.05,)
FILES = ("banking77_train.csv", "banking77_test.csv", "stsb_en_dev.csv")


@dataclass(frozen=True)
class Plan:
    """What every training run has in common."""

    batch_size: int = 64
    epochs: float = 1.0
    learning_rate: float = 2e-5
    seed: int = 0
    max_steps: int | None = None

    def flags(self) -> list[str]:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


class Run(NamedTuple):
    """One model to score. Without a loss it is the model as it is; without a guide the loss is unguided."""

    layers: int | None
    loss: str | None
    guide: str | None
    temperature: float | None


class Measurement:
    """The folder, the data and the plan of one measurement, and its steps."""

    def __init__(self, data: Path, work: Path, plan: Plan, pairs: int | None, draws: int, mpnet: Path) -> None:
        self.data, self.work, self.plan, self.draws = data, work, plan, draws
        self.locators = {MINILM: STUDENT, MPNET: str(mpnet)}
        self.train, self.test = read_questions(data / FILES[0]), read_questions(data / FILES[1])
        self.intents = {question.text: question.intent for question in self.train}
        self.pairs = self._write_pairs(pairs)
        self.results = Results(work / "results.jsonl")
        self.data_key = {name: sha256_of(data / name) for name in FILES}
        self.model_keys = {name: key_of(fingerprint_files(find_model(at))) for name, at in self.locators.items()}
        self.indexes = {name: self._index(name) for name in self.locators}

    def _write_pairs(self, count: int | None) -> Path:
        path = self.work / f"pairs-{count or 'all'}.jsonl"
        self.work.mkdir(parents=True, exist_ok=True)
        rows = make_pairs(self.train, self.plan.seed)[:count]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (self.work / "intents.json").write_text(json.dumps(self.intents, indent=0), encoding="utf-8")
        return path

    def _index(self, guide: str) -> GuideIndex:
        key = key_of([sha256_of(self.pairs), self.model_keys[guide]])[:12]
        out = self.work / f"index-{guide}-{key}"
        gistcache("index", str(self.pairs), "--guide", self.locators[guide], "--out", str(out))
        return GuideIndex.open(out)

    def detector(self, guide: str) -> dict[str, Any]:
        """Precision and recall of a guide's removals, and decisions that float16 changes."""
        index, plan = self.indexes[guide], self.plan
        setting = {"index": index_key(index), "batch_size": plan.batch_size, "seed": plan.seed, "margins": MARGINS}
        first = {"batches": ROUNDING_BATCHES}

        def rounding() -> Any:
            model = load_model(find_model(self.locators[guide]), device=pick_device("auto"))
            return changed_by_rounding(index, model, plan.batch_size, plan.seed)

        def cells() -> Any:
            return detector_figures(index, self.intents, plan.batch_size, plan.seed)

        return {
            "cells": self.results.keep_or_make({"step": "detector", **setting}, cells),
            "rounding": self.results.keep_or_make({"step": "rounding", **setting, **first}, rounding),
        }

    def score(self, run: Run) -> dict[str, Any]:
        """Train the run's student if it has a loss, and score it."""
        setting = self._setting(run)

        def make() -> dict[str, Any]:
            model, removed = self._as_is(run) if run.loss is None else self._trained(run, setting)
            return self._scores(model) | {"removed_share": removed}

        draws = [self.draws, DRAW_SEED, QUESTIONS_PER_INTENT]
        setting = setting | {"step": "score", "data": self.data_key, "draws": draws}
        return run._asdict() | self.results.keep_or_make(setting, make)

    def _setting(self, run: Run) -> dict[str, Any]:
        if run.loss is None:
            return {"model": self.model_keys[run.guide or MINILM], "layers": run.layers}
        setting = run._asdict() | asdict(self.plan) | {"model": self.model_keys[MINILM], "guide": None}
        corpus = {"corpus": self.indexes[MINILM].manifest.request.corpus["sha256"]}
        return setting | corpus | ({"guide": index_key(self.indexes[run.guide])} if run.guide else {})

    def _as_is(self, run: Run) -> tuple[Any, None]:
        return load_student(self.locators[run.guide or MINILM], layers=run.layers, device=pick_device("auto")), None

    def _trained(self, run: Run, setting: dict[str, Any]) -> tuple[Any, float | None]:
        """The trained student, from its folder where it is finished; ``metrics.json`` is written last."""
        out = self.work / "students" / key_of(setting)[:16]
        if not (out / "metrics.json").is_file():
            shutil.rmtree(out, ignore_errors=True)
            say(f"training {run}")
            index = self.indexes[run.guide or MINILM].layout.root
            flags = ["--loss", str(run.loss), "--temperature", str(run.temperature), *self.plan.flags()]
            flags += ["--layers", str(run.layers)] if run.layers else []
            gistcache("train", "--index", str(index), "--student", STUDENT, "--out", str(out), *flags)
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return load_model(find_model(str(out)), device=pick_device("auto")), metrics["removed_share"]

    def _scores(self, model: Any) -> dict[str, Any]:
        mean, deviation = accuracy(model, self.train, self.test, self.draws)
        sts = evaluate_sts(model, str(self.data / FILES[2]))["spearman"]
        return {"accuracy": mean, "deviation": deviation, "sts": sts}


def groups(first: float, *others: float) -> list[list[Run]]:
    """All models: the students as they are and trained at the first temperature; the larger guide; then the rest."""
    as_is = [Run(layers, None, None, None) for layers in LAYERS]
    return [[*as_is, *trained(first)], [Run(None, None, MPNET, None)], *(trained(other) for other in others)]


def trained(temperature: float) -> list[Run]:
    """The students trained at one temperature."""
    losses = [("unguided", None), ("guided", MINILM), ("guided", MPNET)]
    return [Run(layers, loss, guide, temperature) for layers in LAYERS for loss, guide in losses]


def index_key(index: GuideIndex) -> str:
    """What made an index, without the name the guide went by."""
    request = asdict(index.manifest.request)
    del request["guide"]["name"]
    return key_of(request)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="the public data")
    parser.add_argument("--mpnet", type=Path, default=REPOSITORY / "data" / "models" / MPNET)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "banking77", help="everything that is kept")
    parser.add_argument("--temperatures", type=float, nargs="+", default=list(TEMPERATURES))
    parser.add_argument("--pairs", type=int, help="a trial with so many pairs")
    parser.add_argument("--max-steps", type=int, help="a trial with so many steps")
    parser.add_argument("--draws", type=int, default=10, help="times that Banking77 training questions are drawn")
    given = parser.parse_args()
    if missing := [name for name in FILES if not (given.data / name).is_file()]:
        sys.exit(f"{', '.join(missing)} not in {given.data}: there is nothing to measure on\n  to do: give --data")
    if not given.mpnet.is_dir():
        sys.exit(f"No model in {given.mpnet}\n  to do: python data/fetch_mpnet.py --out data/models, or give --mpnet")
    return given


def main() -> None:
    given = arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    trial = bool(given.pairs or given.max_steps or given.draws != 10)
    out = (given.work if trial else REPOSITORY / "docs") / "RESULTS.md"
    plan = Plan(max_steps=given.max_steps)
    measurement = Measurement(given.data, given.work, plan, given.pairs, given.draws, given.mpnet)
    detectors = {guide: measurement.detector(guide) for guide in measurement.locators}
    scores, text = [], ""
    for group in groups(*given.temperatures):  # a page after each, so that the first need not wait for the second
        scores += [measurement.score(run) for run in group]
        text = report(scores, detectors, asdict(plan), len(measurement.indexes[MINILM]), given.draws)
        out.write_text(text, encoding="utf-8")
    print(text)
    say(f"written to {out}")


if __name__ == "__main__":
    main()
