"""Peak memory of one training step at batch 8,192 with gradient caching, against batch 256 without.

python tests/bench/large_batch.py
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from bench_data import gistcache, student
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.timing import peak_memory_bytes
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from interleaved import WORK, Figures, in_own_process
from scale import hashing_guide, pairs_of

TEXTS = 100_000
SHAPES = ((256, None), (256, 4_096), (2_048, 4_096), (8_192, 4_096))


def measure() -> Figures:
    """Peak bytes and seconds of one step of each shape, each in a process of its own."""
    if not (WORK / f"scale-{TEXTS}" / "manifest.json").is_file():
        gistcache("index", pairs_of(TEXTS), "--guide", hashing_guide(), "--out", WORK / f"scale-{TEXTS}")
    return {
        f"{batch}|{tokens or 0}": in_own_process("large_batch.py", "--batch-size", batch, "--tokens", tokens or 0)
        for batch, tokens in SHAPES
    }


def one_step(batch_size: int, tokens: int | None) -> Figures:
    """One step, optimizer and all."""
    index = GuideIndex.open(WORK / f"scale-{TEXTS}")
    model = student()
    loss = GuidedContrastiveLoss(model, index, temperature=0.05, mini_batch_num_tokens=tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    plan = plan_of_index(index, np.arange(len(index)), PlanSettings(batch_size))
    rows = index.to_dataset(0)[plan[0].tolist()]
    begun = time.perf_counter()
    features = [model.preprocess(rows[column]) for column in ("anchor", "positive")]
    loss(features, torch.tensor(rows["label"])).backward()
    optimizer.step()
    used = sum(int(column["attention_mask"].sum()) for column in features) / (2 * batch_size)
    return {"peak": peak_memory_bytes(), "seconds": time.perf_counter() - begun, "tokens a text": used}


def table(figures: Figures) -> str:
    """One line a shape."""
    base = figures["256|0"]["peak"]
    lines = ["| batch | tokens a mini-batch | peak memory | against batch 256 | seconds a step |", "|---" * 5 + "|"]
    for name, measured in figures.items():
        batch, tokens = (int(part) for part in name.split("|"))
        cached = f"{tokens:,}" if tokens else "no gradient caching"
        share = f"{measured['peak'] / base:.2f} times"
        lines.append(
            f"| {batch:,} | {cached} | {measured['peak'] / 1e9:.2f} GB | {share} | {measured['seconds']:.1f} |"
        )
    return "\n".join(lines) + f"\n\n{figures['256|0']['tokens a text']:.0f} tokens a text.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--tokens", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    print(json.dumps(one_step(args.batch_size, args.tokens or None)) if args.batch_size else table(measure()))


if __name__ == "__main__":
    main()
