"""The whole bill of E epochs and S students: index once and train, against the guide in every batch.

    python tests/bench/bill.py

Extrapolated from measured steps, and checked by one real run of both with two epochs and two students on fewer pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from bench_data import GUIDE, MAX_LENGTH, STUDENT, gistcache, guide, pairs_file
from datasets import Dataset
from gistcache.train.student.load import load_student
from interleaved import REPOSITORY, WORK, Figures, median, say
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from training_step import GIST, OURS

BATCH, EPOCHS, LAYERS = 64, 2, (None, 3)
REAL_PAIRS = 384
PLOT = REPOSITORY / "docs" / "cost.svg"


def real_run(pairs: int = REAL_PAIRS) -> Figures:
    """Seconds of two epochs of two students, both ways, from files to models."""
    source, out = pairs_file(pairs), WORK / f"bill-{int(time.time())}"
    begun = time.perf_counter()
    gistcache("index", source, "--guide", GUIDE, "--out", out / "index", "--max-length", MAX_LENGTH)
    indexed = time.perf_counter() - begun
    for layers in LAYERS:
        flags = ["--layers", layers] if layers else []
        flags += ["--epochs", EPOCHS, "--batch-size", BATCH, "--temperature", 0.05, "--max-length", MAX_LENGTH]
        gistcache("train", "--index", out / "index", "--student", STUDENT, "--out", out / f"s{layers}", *flags)
    ours = time.perf_counter() - begun
    say(f"gistcache: index {indexed:.0f} s, all {ours:.0f} s")
    begun = time.perf_counter()
    for layers in LAYERS:
        _in_the_loop(source, layers, out / f"loop-{layers}")
    loop = time.perf_counter() - begun
    say(f"guide in the loop: {loop:.0f} s")
    return {"pairs": pairs, "index": indexed, "ours": ours, "loop": loop}


def _in_the_loop(source: Path, layers: int | None, out: Path) -> None:
    """Train one student with sentence-transformers' own loss and the guide in memory."""
    rows = Dataset.from_list([json.loads(line) for line in source.read_text().splitlines()])
    student = load_student(STUDENT, layers=layers, max_length=MAX_LENGTH)
    args = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        dataloader_drop_last=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        batch_sampler=BatchSamplers.NO_DUPLICATES,
    )
    loss = GISTEmbedLoss(student, guide(), temperature=0.05)
    SentenceTransformerTrainer(student, args, train_dataset=rows, loss=loss).train()
    student.save_pretrained(str(out))


def measure(step: Figures, index_seconds: float, pairs: int) -> Figures:
    """Seconds of index and of an epoch both ways on all pairs, and the real run of the small part.

    Args:
        step: The figures of ``training_step`` at batch 64.
        index_seconds: Seconds of indexing all pairs.
        pairs: How many pairs that was.
    """
    steps = pairs // BATCH
    seconds = {name: steps * median(step["seconds"][name]) for name in (OURS, GIST)}
    return {"pairs": pairs, "index": index_seconds, "ours": seconds[OURS], "loop": seconds[GIST], "real": real_run()}


def table(figures: Figures) -> str:
    """Extrapolated hours by epochs x students, the break-even point, and the real run."""
    lines = ["| epochs x students | gistcache | guide in the loop | times cheaper |", "|---" * 4 + "|"]
    for passes in (1, 4, 16, 40, 160):
        ours, loop = figures["index"] + passes * figures["ours"], passes * figures["loop"]
        lines.append(f"| {passes} | {ours / 3600:.2f} h | {loop / 3600:.2f} h | {loop / ours:.1f} |")
    even = figures["index"] / (figures["loop"] - figures["ours"])
    real = figures["real"]
    return "\n".join(lines) + (
        f"\n\n{figures['pairs']:,} pairs; index {figures['index']:.0f} s once, then an epoch costs "
        f"{figures['ours']:.0f} s against {figures['loop']:.0f} s. The index is paid back after {even:.2f} epochs of "
        "one student.\n\n"
        f"A real run, {real['pairs']} pairs, two epochs, two students (six and three layers), files to models: "
        f"gistcache {real['ours']:.0f} s, of which the index {real['index']:.0f} s; guide in the loop "
        f"{real['loop']:.0f} s, "
        f"{real['loop'] / real['ours']:.1f} times as long.\n\n![cost against epochs x students](cost.svg)\n"
    )


def plot(figures: Figures, to: Path = PLOT) -> None:
    """Cost against epochs x students, with the break-even point."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "gistcache"
    from matplotlib import pyplot as plt

    passes = np.linspace(0, 8, 81)
    even = figures["index"] / (figures["loop"] - figures["ours"])
    drawing, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(passes, (figures["index"] + passes * figures["ours"]) / 60, label="gistcache: index once, then train")
    axes.plot(passes, passes * figures["loop"] / 60, label="guide in the loop (GISTEmbedLoss)")
    axes.axvline(even, linestyle=":", color="gray", label=f"break-even: {even:.2f}")
    axes.set(xlabel="epochs x students", ylabel="minutes", xlim=(0, 8), ylim=(0, None))
    axes.legend()
    drawing.savefig(to, metadata={"Date": None})


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    torch.set_num_threads(2)
    print(json.dumps(real_run()))


if __name__ == "__main__":
    main()
