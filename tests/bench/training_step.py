"""One training step, side by side with sentence-transformers' losses: seconds by turns, peak memory alone.

python tests/bench/training_step.py --batch-size 64 --rounds 7
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from bench_data import GUIDE, guide, index_of, pairs_file, student
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.timing import peak_memory_bytes
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from gistcache.train.settings import LossSettings
from interleaved import WORK, Figures, by_turns, in_own_process, median, ratio, spread
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    GISTEmbedLoss,
    MultipleNegativesRankingLoss,
)

OURS, UNGUIDED, GIST, CACHED_GIST, PLAIN = (
    "gistcache, guided",
    "gistcache, unguided",
    "GISTEmbedLoss",
    "CachedGISTEmbedLoss",
    "MultipleNegativesRankingLoss (unguided)",
)
TEMPERATURE = 0.05
LOSSES: dict[str, Literal["guided", "unguided"]] = {OURS: "guided", UNGUIDED: "unguided"}
CACHED_MINI_BATCH = 32


def loss_of(name: str, model, index: GuideIndex):
    """A loss by the name it has in the table."""
    if name in LOSSES:
        return GuidedContrastiveLoss(model, index, LossSettings(temperature=TEMPERATURE, loss=LOSSES[name]))
    if name == PLAIN:
        return MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    if name == GIST:
        return GISTEmbedLoss(model, guide(), temperature=TEMPERATURE)
    return CachedGISTEmbedLoss(model, guide(), temperature=TEMPERATURE, mini_batch_size=CACHED_MINI_BATCH)


def stepper(
    name: str, index: GuideIndex, plan: np.ndarray, prepare: Callable[..., None] = lambda model: None
) -> Callable[[int], None]:
    """A function that takes one training step on a batch of the plan: tokenise, forward, backward, clip, AdamW."""
    model = student()
    prepare(model)
    loss, rows = loss_of(name, model, index), index.to_dataset(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)

    def step(number: int) -> None:
        batch = rows[plan[number % len(plan)].tolist()]
        features = [model.preprocess(batch[column]) for column in ("anchor", "positive")]
        loss(features, torch.tensor(batch["label"])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(
    batch_size: int, rounds: int, names: tuple[str, ...] = (OURS, UNGUIDED, GIST, CACHED_GIST, PLAIN)
) -> Figures:
    """Seconds a step of each loss, and the peak memory of a process that does nothing else."""
    index = index_of(pairs_file(), GUIDE, "index-mpnet")
    plan = plan_of_index(index, np.arange(len(index)), PlanSettings(batch_size))
    seconds = by_turns({name: stepper(name, index, plan) for name in names}, rounds)
    peaks = {name: in_own_process("training_step.py", "--peak", name, "--batch-size", batch_size) for name in names}
    return {"seconds": seconds, "peak": {name: figures["peak"] for name, figures in peaks.items()}}


def peak(name: str, batch_size: int, steps: int = 2) -> int:
    """Peak resident bytes of a few steps."""
    index = GuideIndex.open(WORK / "index-mpnet")
    plan = plan_of_index(index, np.arange(len(index)), PlanSettings(batch_size))
    step = stepper(name, index, plan)
    for number in range(steps):
        step(number)
    return peak_memory_bytes()


def table(figures: Figures) -> str:
    """The table of one batch size."""
    seconds, ours = figures["seconds"], figures["seconds"][OURS]
    lines = ["| loss | seconds a step | times ours | peak memory |", "|---|---|---|---|"]
    for name, values in seconds.items():
        lines.append(f"| {name} | {spread(values)} | {ratio(values, ours)} | {figures['peak'][name] / 1e9:.2f} GB |")
    slower = 100 * (median([a / b for a, b in zip(ours, seconds[UNGUIDED], strict=True)]) - 1)
    return "\n".join(lines) + f"\n\nGuided against our own unguided step, median of the rounds: {slower:+.1f} %.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", help="measure the peak memory of this loss alone")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.peak:
        print(json.dumps({"peak": peak(args.peak, args.batch_size)}))
    else:
        print(table(measure(args.batch_size, args.rounds)))


if __name__ == "__main__":
    main()
