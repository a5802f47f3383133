"""Where one guided training step goes, by part, in milliseconds.

python tests/bench/profile_step.py
"""

from __future__ import annotations

import json

import numpy as np
import torch
from bench_data import GUIDE, index_of, pairs_file
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from interleaved import Figures
from torch.profiler import ProfilerActivity, profile
from training_step import OURS, stepper

STEPS = 5
PARTS = {
    "matrix products": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm"),
    "attention products": ("aten::bmm",),
    "activation and normalisation": (
        "aten::gelu",
        "aten::gelu_backward",
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
        "aten::_softmax",
        "aten::_softmax_backward_data",
    ),
    "dropout masks": ("aten::bernoulli_", "aten::ge"),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_"),
    "element-wise": ("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::div", "aten::sum"),
    "optimizer and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm", "aten::_foreach_norm"),
}


def measure() -> Figures:
    """Milliseconds a step of each part, on the CPU."""
    index = index_of(pairs_file(), GUIDE, "index-mpnet")
    step = stepper(OURS, index, plan_of_index(index, np.arange(len(index)), PlanSettings(64)))
    for number in range(3):
        step(number)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for number in range(STEPS):
            step(number)
    spent = {event.key: event.self_cpu_time_total / 1000 / STEPS for event in profiled.key_averages()}
    parts = {part: sum(spent.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    return parts | {"everything else": sum(spent.values()) - sum(parts.values())}


def table(figures: Figures) -> str:
    """One line a part."""
    total = sum(figures.values())
    lines = ["| part | ms | share |", "|---|---|---|"]
    lines += [f"| {part} | {spent:.0f} | {spent / total:.0%} |" for part, spent in figures.items()]
    return "\n".join([*lines, f"| whole step | {total:.0f} | |"]) + "\n"


def main() -> None:
    torch.set_num_threads(2)
    figures = measure()
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
