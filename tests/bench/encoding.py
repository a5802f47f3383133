"""Embedding texts with a guide, side by side with ``SentenceTransformer.encode``: same guide, same texts, float32.

python tests/bench/encoding.py --texts 640 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from banking77_scores import read_questions
from bench_data import BANKING, DOCS, GUIDE, MAX_LENGTH, STUDENT
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.models.lengths import row_lengths
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.shared.models.onednn import OneDNNLinear
from interleaved import Figures, by_turns, median, ratio, spread

GUIDES = {"all-MiniLM-L6-v2": STUDENT, "all-mpnet-base-v2": GUIDE}


def texts_of(count: int) -> dict[str, list[str]]:
    """Unique texts of each source that is at hand, in random order: short questions, longer documents."""
    sources = {}
    if BANKING.is_file():
        sources["Banking77 questions"] = [question.text for question in read_questions(BANKING)]
    if DOCS.is_file():
        sources["docs pairs"] = pq.read_table(DOCS)["positive"].to_pylist()
    random = np.random.default_rng(0)
    unique = {name: list(dict.fromkeys(texts)) for name, texts in sources.items()}
    return {name: [texts[i] for i in random.permutation(len(texts))[:count]] for name, texts in unique.items()}


def matrix_rates() -> Figures:
    """Of each guide: its weights in matrix products, and the rate of its own feed-forward product in operations/s."""
    return {name: _matrix_rate(locator) for name, locator in GUIDES.items()}


def _matrix_rate(locator: str) -> dict[str, float]:
    config = load_model(find_model(locator))[0].model.config  # type: ignore[union-attr]
    width, inner = config.hidden_size, config.intermediate_size
    tokens, weights = torch.randn(1024, width), torch.randn(inner, width)
    rates = []
    with OneDNNLinear(), torch.inference_mode():
        for _ in range(50):
            begun = time.perf_counter()
            F.linear(tokens, weights)
            rates.append(2 * 1024 * width * inner / (time.perf_counter() - begun))
    return {"weights": config.num_hidden_layers * (4 * width**2 + 2 * width * inner), "rate": float(np.median(rates))}


def measure(count: int, rounds: int) -> Figures:
    """Seconds of both for every guide and source."""
    figures: Figures = {}
    for name, locator in GUIDES.items():
        guide = ModelGuide(IndexSettings(guide=locator, max_length=MAX_LENGTH))
        for source, texts in texts_of(count).items():
            variants = {
                "gistcache": lambda _, guide=guide, texts=texts: guide.encode(texts, "document"),
                "encode": lambda _, guide=guide, texts=texts: guide.model.encode(texts, batch_size=32),
            }
            seconds = by_turns(variants, rounds)
            tokens = int(row_lengths(guide.model.preprocess(texts)).sum())
            figures[f"{name}|{source}"] = {"texts": len(texts), "tokens": tokens, "seconds": seconds}
    return figures


def table(figures: Figures, matrix: Figures) -> str:
    """One line a guide and source, with the share of the matrix rate that ours reaches."""
    lines = [
        "| guide | texts | gistcache, texts/s | encode, texts/s | times faster | share of the matrix rate |",
        "|---" * 6 + "|",
    ]
    for name, measured in figures.items():
        guide, source = name.split("|")
        ours, theirs = measured["seconds"]["gistcache"], measured["seconds"]["encode"]
        rates = [spread([measured["texts"] / value for value in values], 0) for values in (ours, theirs)]
        products = 2 * measured["tokens"] * matrix[guide]["weights"]
        share = products / median(ours) / matrix[guide]["rate"]
        what = f"{measured['texts']} {source}, {measured['tokens'] / measured['texts']:.0f} tokens each"
        lines.append(f"| {guide} | {what} | {rates[0]} | {rates[1]} | {ratio(theirs, ours)} | {share:.0%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(2)
    figures = measure(args.texts, args.rounds)
    print(table(figures, matrix_rates()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
