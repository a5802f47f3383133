"""Time and memory of both stages as the corpus grows: 10,000 to 1,000,000 texts through a guide that hashes.

    python tests/bench/scale.py --texts 10000 100000 1000000

The guide is a table of random vectors, one a token, summed: embedding costs next to nothing, so that what is seen is
everything else. Half of the texts are anchors, half positives; texts come in topics, so that they have neighbours.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench_data import STUDENT, gistcache
from gistcache.precompute.corpus import read_corpus
from gistcache.shared.data.columns import Columns
from gistcache.shared.data.pairs import read_pairs
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.shared.timing import peak_memory_bytes
from gistcache.train.batches.sampler import PlannedBatches
from gistcache.train.run.trainer import build_trainer
from gistcache.train.settings import TrainSettings
from gistcache.train.student.students import load_student
from interleaved import WORK, Figures, in_own_process
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

DIM, TOPIC_TEXTS, TOPIC_WORDS, OWN_WORDS = 384, 400, 6, 4
TRAIN_STEPS = 20


def hashing_guide() -> Path:
    """A folder with a guide of random token vectors."""
    folder = WORK / f"hashing-guide-{DIM}"
    if not (folder / "modules.json").is_file():
        torch.manual_seed(0)
        tokenizer = load_model(find_model(STUDENT)).tokenizer.backend_tokenizer
        SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=DIM), Normalize()]).save(str(folder))
    return folder


def pairs_of(texts: int) -> Path:
    """A Parquet file of texts / 2 pairs, all texts different."""
    path = WORK / f"generated-{texts}.parquet"
    if not path.is_file():
        vocabulary = load_model(find_model(STUDENT)).tokenizer.get_vocab()
        words = np.array(sorted(word for word in vocabulary if word.isalpha() and len(word) > 3))
        random = np.random.default_rng(0)
        topics = random.integers(len(words), size=(max(1, texts // TOPIC_TEXTS), TOPIC_WORDS))
        rows = np.tile(random.permutation(texts // 2) % len(topics), 2)
        ids = np.concatenate([topics[rows], random.integers(len(words), size=(texts, OWN_WORDS))], axis=1)
        texts_of_rows = [f"{' '.join(row)} {number}" for number, row in enumerate(words[ids])]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"anchor": texts_of_rows[: texts // 2], "positive": texts_of_rows[texts // 2 :]}), path)
    return path


def measure(sizes: list[int]) -> Figures:
    """What each size costs in stage 1 and in the first steps of stage 2, each in a process of its own."""
    guide, model_bytes = hashing_guide(), in_own_process("scale.py", "--model-memory")["peak"]
    figures: Figures = {"model": model_bytes, "index": {}, "train": {}}
    for texts in sizes:
        out = WORK / f"scale-{texts}"
        if not (out / "manifest.json").is_file():
            gistcache("index", pairs_of(texts), "--guide", guide, "--out", out)
        figures["index"][str(texts)] = json.loads(GuideIndex.open(out).layout.summary.read_text())
        in_own_process("scale.py", "--train", out)  # makes the token cache and the mapped data set, once an index
        figures["train"][str(texts)] = in_own_process("scale.py", "--train", out)
    return figures


def trained(index_folder: Path, out: Path) -> Figures:
    """Resident memory and seconds a step after a few steps of a three-layer student."""

    index = GuideIndex.open(index_folder)
    settings = TrainSettings(
        index=index_folder, student=STUDENT, out=out, batch_size=64, max_steps=TRAIN_STEPS, device="cpu", layers=3
    )
    trainer, _ = build_trainer(settings, index, load_student(STUDENT, layers=3), None)
    begun = time.perf_counter()
    len(PlannedBatches.of(index, 0)(trainer.train_dataset, 64))
    planned = time.perf_counter() - begun
    tracemalloc.start()  # NumPy reports its arrays to it
    len(PlannedBatches.of(index, 0)(trainer.train_dataset, 64))
    planning = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return {
        "resident": int(resident.split()[1]) * 1024,
        "peak": peak_memory_bytes(),
        "seconds": seconds,
        "plan": planned,
        "plan_bytes": planning,
    }


def table(figures: Figures) -> str:
    """Both stages by number of texts."""
    steps = list(next(iter(figures["index"].values()))["seconds"])
    lines = ["| texts | " + " | ".join(steps) + " | peak beyond the model |", "|---" * (len(steps) + 2) + "|"]
    for texts, measured in figures["index"].items():
        seconds = " | ".join(f"{measured['seconds'].get(name, 0):.1f} s" for name in steps)
        beyond = (measured["peak_memory_bytes"] - figures["model"]) / 1e9
        lines.append(f"| {int(texts):,} | {seconds} | {beyond:.2f} GB |")
    lines += [
        "",
        f"| texts | trainer: resident after {TRAIN_STEPS} steps | peak | batch plan, batch 64 | its memory |",
        "|---" * 5 + "|",
    ]
    for texts, measured in figures["train"].items():
        memory = f"{measured['resident'] / 1e6:,.0f} MB | {measured['peak'] / 1e6:,.0f} MB"
        lines.append(
            f"| {int(texts):,} | {memory} | {measured['plan']:.1f} s | {measured['plan_bytes'] / 1e6:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def index_bytes(texts: int) -> dict[str, int]:
    """Bytes of each kind of file of a built index."""
    parts = GuideIndex.open(WORK / f"scale-{texts}").manifest.shards
    return {kind: sum(record.bytes for record in records) for kind, records in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--train", type=Path, help="measure the trainer on this index alone")
    parser.add_argument("--model-memory", action="store_true", help="measure a process that only loads the guide")
    parser.add_argument("--read-memory", type=Path, help="measure what reading these pairs holds, alone")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.model_memory:
        load_model(hashing_guide()).encode(["a text"])
        print(json.dumps({"peak": peak_memory_bytes()}))
    elif args.read_memory:
        before = peak_memory_bytes()
        texts = read_corpus(read_pairs([str(args.read_memory)], Columns())).texts.height
        print(json.dumps({"texts": texts, "bytes": peak_memory_bytes() - before}))
    elif args.train:
        print(json.dumps(trained(args.train, WORK / "scale-student")))
    else:
        print(table(measure(args.texts)))
        print({texts: index_bytes(texts) for texts in args.texts})


if __name__ == "__main__":
    main()
