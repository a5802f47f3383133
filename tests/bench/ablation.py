"""What each part of the fast step brings: the step as it is, and with one part taken out, by turns.

python tests/bench/ablation.py --rounds 7
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import torch
from bench_data import GUIDE, index_of, pairs_file
from gistcache.shared.models.onednn import onednn_pays
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.student import forward
from interleaved import Figures, by_turns, ratio, spread
from training_step import OURS, stepper

AS_IS = "as it is"
CHANGES: dict[str, tuple[str, Callable[..., object]]] = {
    "torch's own matrix products (MKL)": ("OneDNNLinear", nullcontext),
    "length buckets, not packed": ("can_pack", lambda *_: False),
}


def measure(rounds: int) -> Figures:
    """Seconds a step at batch 64 of every variant."""
    index = index_of(pairs_file(), GUIDE, "index-mpnet")
    plan = plan_of_index(index, np.arange(len(index)), PlanSettings(64))
    variants: dict[str, Callable[[int], None]] = {AS_IS: stepper(OURS, index, plan)}
    for name, (part, instead) in CHANGES.items():
        variants[name] = _with(stepper(OURS, index, plan), {part: instead})
    return {"seconds": by_turns(variants, rounds, warmup=3), "onednn": onednn_pays()}


def _with(step: Callable[[int], None], changes: dict[str, Callable[..., object]]) -> Callable[[int], None]:
    def run(number: int) -> None:
        with patch.multiple(forward, **changes):
            step(number)

    return run


def table(figures: Figures) -> str:
    """One line a variant."""
    base = figures["seconds"][AS_IS]
    lines = ["| step | seconds | times the step as it is |", "|---|---|---|"]
    lines += [f"| {name} | {spread(values)} | {ratio(values, base)} |" for name, values in figures["seconds"].items()]
    note = "" if figures["onednn"] else "\n\noneDNN is no faster on this processor: the first two lines are the same."
    return "\n".join(lines) + note + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    torch.set_num_threads(2)
    figures = measure(parser.parse_args().rounds)
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
