"""Training steps a second with the token cache and without, for a student that is fast enough to wait for its tokens.

    python tests/bench/token_cache.py

A static student (one vector a token) stands for what a small transformer is on an accelerator: its step costs less than
tokenising does.
"""

from __future__ import annotations

import argparse
import time

import torch
from bench_data import STUDENT, index_of, pairs_file, student
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.train.run.trainer import build_trainer
from gistcache.train.settings import TrainSettings
from interleaved import WORK, Figures, ratio, say, spread
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

CASES = {"static, 64": (True, 64, 150), "static, 512": (True, 512, 19), "all-MiniLM-L6-v2, 64": (False, 64, 8)}


def fresh_student(static: bool):
    if not static:
        return student()
    torch.manual_seed(0)
    tokenizer = load_model(find_model(STUDENT)).tokenizer.backend_tokenizer
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=256)], device="cpu")


def measure(rounds: int) -> Figures:
    """Seconds of a short training run with and without the cache, and its loss."""
    index = index_of(pairs_file(), STUDENT, "index-minilm")
    figures: Figures = {}
    for name, (static, batch, steps) in CASES.items():
        result: Figures = {"steps": steps, "seconds": {"with": [], "without": []}, "losses": {}}
        for number in range(rounds):
            for key, cached in (("with", True), ("without", False)):
                seconds, result["losses"][key] = trained(index, fresh_student(static), batch, steps, cached)
                result["seconds"][key].append(seconds)
                say(f"round {number + 1}: {name}, {key} {seconds:.2f} s")
        figures[name] = result
    return figures


def trained(index: GuideIndex, model: SentenceTransformer, batch: int, steps: int, cached: bool) -> tuple[float, float]:
    """Seconds of some steps of training, and their mean loss."""
    settings = TrainSettings(
        index=index.layout.root,
        student="as given",
        out=WORK / "token-student",
        batch_size=batch,
        max_steps=steps,
        device="cpu",
        token_cache=cached,
        logging_steps=1000,
    )
    trainer, _ = build_trainer(settings, index, model, None)
    begun = time.perf_counter()
    outcome = trainer.train()
    return time.perf_counter() - begun, outcome.training_loss


def table(figures: Figures) -> str:
    """One line a student and batch size."""
    lines = [
        "| student, batch | steps/s with | steps/s without | times faster | loss with, without |",
        "|---" * 5 + "|",
    ]
    for name, result in figures.items():
        rates = {
            key: spread([result["steps"] / value for value in values], 1) for key, values in result["seconds"].items()
        }
        faster = ratio(result["seconds"]["without"], result["seconds"]["with"])
        losses = f"{result['losses']['with']:.6f}, {result['losses']['without']:.6f}"
        lines.append(f"| {name} | {rates['with']} | {rates['without']} | {faster} | {losses} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    torch.set_num_threads(2)
    print(table(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
