"""Every benchmark, and docs/BENCHMARKS.md.

python tests/bench/benchmarks.py            what is in runs/bench is not measured again
python tests/bench/benchmarks.py --again    measure everything
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from string import Template

import ablation
import bill
import encoding
import large_batch
import neighbors
import profile_step
import scale
import token_cache
import torch
import training_step
from bench_data import GUIDE, index_of, pairs_file
from gistcache.train.batches.plan import batch_plan
from interleaved import REPOSITORY, WORK, Figures, cached, in_own_process, machine, say

PAGE = REPOSITORY / "docs" / "BENCHMARKS.md"
TEMPLATE = REPOSITORY / "tests" / "bench" / "benchmarks_page.md"
STEP_ROUNDS = {64: 5, 256: 2}
PLAN_PAIRS, PLAN_BATCH = 1_000_000, 4_096


def plan_seconds() -> Figures:
    """Seconds of a batch plan for a million pairs at batch 4,096; a tenth of the pairs share their positive."""
    import time

    import numpy as np

    random = np.random.default_rng(0)
    positives = np.arange(PLAN_PAIRS)
    shared = random.random(PLAN_PAIRS) < 0.1
    positives[shared] = random.integers(PLAN_PAIRS // 20, size=int(shared.sum()))
    texts = np.column_stack([positives, np.arange(PLAN_PAIRS) + PLAN_PAIRS])
    begun = time.perf_counter()
    plan = batch_plan(texts, np.zeros(PLAN_PAIRS, dtype=np.int32), PLAN_BATCH, np.random.default_rng(0))
    return {"seconds": time.perf_counter() - begun, "batches": len(plan)}


def bill_figures(step: Figures) -> Figures:
    """The bill from the step's figures and the index's own summary of what it took."""
    index = index_of(pairs_file(), GUIDE, "index-mpnet")
    took = WORK / "index-mpnet-seconds.json"
    return bill.measure(step, json.loads(took.read_text())["seconds"], len(index))


def index_seconds() -> None:
    """Keep what building the index took; a second call of the command would overwrite its summary."""
    took = WORK / "index-mpnet-seconds.json"
    if not took.is_file():
        shutil.rmtree(WORK / "index-mpnet", ignore_errors=True)
        index = index_of(pairs_file(), GUIDE, "index-mpnet")
        summary = json.loads(index.layout.summary.read_text())
        took.write_text(json.dumps({"seconds": sum(summary["seconds"].values())}))


def accelerator() -> str:
    """What was measured on an accelerator, where one was at hand."""
    import accelerator as measured

    if not measured.MEASURED.is_file():
        return "Not run: no accelerator was at hand."
    return measured.report(json.loads(measured.MEASURED.read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--again", action="store_true", help="measure everything again")
    if parser.parse_args().again:
        shutil.rmtree(WORK, ignore_errors=True)
    torch.set_num_threads(2)
    WORK.mkdir(parents=True, exist_ok=True)
    index_seconds()
    step = cached("step_64", STEP_ROUNDS[64], lambda: training_step.measure(64, STEP_ROUNDS[64]))
    measured: dict[str, Callable[[], Figures]] = {
        "bill": lambda: bill_figures(step),
        "profile": profile_step.measure,
        "ablation": lambda: ablation.measure(7),
        "encoding": lambda: encoding.measure(320, 3),
        "matrix_rates": encoding.matrix_rates,
        "scale": lambda: scale.measure([10_000, 100_000, 1_000_000]),
        "large_batch": large_batch.measure,
        "neighbors": lambda: in_own_process("neighbors.py"),
        "plan": plan_seconds,
        "token_cache": lambda: token_cache.measure(3),
        "step_256": lambda: training_step.measure(256, STEP_ROUNDS[256]),
    }
    figures = {"step_64": step} | {name: cached(name, name, make) for name, make in measured.items()}
    bill.plot(figures["bill"])
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        machine=machine(),
        **{f"step_{size}": training_step.table(figures[f"step_{size}"]) for size in STEP_ROUNDS},
        profile=profile_step.table(figures["profile"]),
        ablation=ablation.table(figures["ablation"]),
        encoding=encoding.table(figures["encoding"], figures["matrix_rates"]),
        token_cache=token_cache.table(figures["token_cache"]),
        large_batch=large_batch.table(figures["large_batch"]),
        plan=f"{figures['plan']['seconds']:.1f} s",
        neighbors=neighbors.table(figures["neighbors"]),
        scale=scale.table(figures["scale"]),
        bill=bill.table(figures["bill"]),
        accelerator=accelerator(),
    )
    PAGE.write_text(page, encoding="utf-8")
    print(page)
    say(f"written to {PAGE}")


if __name__ == "__main__":
    main()
