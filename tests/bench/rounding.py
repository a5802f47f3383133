"""Writes docs/SMALLER.md from tests/bench/rounding_page.md: what rounding guide vectors changes, on real batches.

    python tests/bench/rounding.py

Banking77's pairs where they are at hand, and the docs pairs; all-MiniLM-L6-v2, and all-mpnet-base-v2 where it is, on
2,000 pairs of Banking77. Every text is embedded in float32. Random batches of 64 pairs are judged with these vectors
and with rounded ones: by the paper's rule at three margins, and by the judge `neighborhood`, whose density and
threshold are measured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from banking77_scores import make_pairs, read_questions
from bench_data import BANKING, DOCS, GUIDE, MAX_LENGTH, STUDENT
from gistcache.shared.candidates import PairVectors
from gistcache.shared.guide_index.quantize import LARGEST, dequantize, quantize
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.train.loss.judges import GuideView, Judge, NeighborhoodJudge, PositiveJudge
from interleaved import REPOSITORY, WORK, say
from judges import closest_scores

BATCHES, BATCH_SIZE, K = 300, 64, 100
NARROW = 2.0
LARGE_GUIDE_PAIRS = 2_000  # of the large guide, on Banking77 only

Rounding = Callable[[np.ndarray], np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def largest_scale(vectors: np.ndarray) -> np.ndarray:
    """The usual int8: the row's largest value over 127 is its scale."""
    scale = np.abs(vectors).max(axis=1, keepdims=True) / LARGEST
    return np.rint(vectors / scale) * scale


def stored_int8(vectors: np.ndarray) -> np.ndarray:
    return dequantize(quantize(vectors, "int8"))


def turned(vectors: np.ndarray) -> np.ndarray:
    """As stored, after a random orthogonal matrix, which changes no dot product and evens the values out."""
    dim = vectors.shape[1]
    matrix, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    return stored_int8(vectors @ matrix.astype(np.float32))


def clipped(vectors: np.ndarray) -> np.ndarray:
    """As stored, with each row's largest values cut off where that brings the row closest to the vector."""
    largest, best = np.abs(vectors).max(axis=1, keepdims=True), stored_int8(vectors)
    closest = (best * vectors).sum(axis=1)
    for share in np.linspace(0.6, 0.98, 20):
        tried = unit(np.clip(np.rint(vectors * LARGEST / (share * largest)), -LARGEST, LARGEST))
        close = (tried * vectors).sum(axis=1)
        best[close > closest], closest = tried[close > closest], np.maximum(close, closest)
    return best


def carried(vectors: np.ndarray) -> np.ndarray:
    """As stored, with each value's rounding error added to the next value."""
    scaled = vectors * LARGEST / np.abs(vectors).max(axis=1, keepdims=True)
    rows, error = np.empty_like(scaled), np.zeros(len(scaled), dtype=np.float32)
    for column in range(scaled.shape[1]):
        wanted = scaled[:, column] + error
        rows[:, column] = np.clip(np.rint(wanted), -LARGEST, LARGEST)
        error = wanted - rows[:, column]
    return unit(rows)


ROUNDINGS: dict[str, Rounding] = {
    "float16": lambda vectors: vectors.astype(np.float16).astype(np.float32),
    "int8, scale from the largest value": largest_scale,
    "**int8, scale from the length (as stored)**": stored_int8,
    "the same, turned before": turned,
    "the same, clipped": clipped,
    "the same, errors carried on": carried,
}


def embedded(pairs: list[tuple[str, str]], guide: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Float32 vectors of unique texts, and (pairs, 2) rows of them; written to runs/bench."""
    path = WORK / f"float32-{name}-{Path(guide).name.replace(':', '-')}.npy"
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    if not path.is_file():
        say(f"embedding {path.stem}")
        model = load_model(find_model(guide), max_length=MAX_LENGTH)
        WORK.mkdir(parents=True, exist_ok=True)
        np.save(path, model.encode(texts, normalize_embeddings=True, show_progress_bar=True))
    place = {text: row for row, text in enumerate(texts)}
    return np.load(path), np.array([[place[text] for text in pair] for pair in pairs])


class Batches:
    """Random batches of pairs, as every rounding sees them."""

    def __init__(self, rows: np.ndarray) -> None:
        random, self.rows = np.random.default_rng(0), rows
        size = len(rows) // BATCH_SIZE * BATCH_SIZE
        epochs = [random.permutation(len(rows))[:size].reshape(-1, BATCH_SIZE) for _ in range(BATCHES)]
        self.pairs = np.concatenate(epochs)[:BATCHES]
        texts = rows[self.pairs]  # (batches, pairs, 2)
        self.counted = ~(texts[:, :, None, :, None] == texts[:, None, :, None, :]).any(axis=(3, 4))

    def decisions(self, vectors: np.ndarray) -> Iterator[torch.Tensor]:
        """(batches, pairs, cells) of each judge in turn."""
        values = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        sides = [values[torch.from_numpy(self.rows[:, side])] for side in range(2)]
        unique_densities = closest_scores(values, torch.arange(len(values)))[:, K - 1]
        density = [unique_densities[torch.from_numpy(self.rows[:, side])] for side in range(2)]
        threshold = 4 * float(((sides[0] * sides[1]).sum(1) - (density[0] + density[1]) / 2).median())
        judges = PositiveJudge(), PositiveJudge(0.05), PositiveJudge(0.05, "relative"), NeighborhoodJudge(threshold)
        for judge in judges:
            yield torch.stack([self._of(judge, sides, density, torch.from_numpy(batch)) for batch in self.pairs])

    def _of(self, judge: Judge, sides: list, density: list, batch: torch.Tensor) -> torch.Tensor:
        vectors, usual = ([*(side[batch] for side in kind), kind[0][:0]] for kind in (sides, density))
        view = GuideView(PairVectors(*vectors), PairVectors(*usual))
        blocks = judge.excess(view, torch.arange(len(batch)), contrast_anchors=True, contrast_positives=True)
        return blocks.joined() > 0

    def shares(self, vectors: np.ndarray, exact: list[torch.Tensor]) -> list[float]:
        counted = torch.from_numpy(np.tile(self.counted, 3))
        pairs = zip(self.decisions(vectors), exact, strict=True)
        return [float((mine != theirs)[counted].float().mean()) for mine, theirs in pairs]


def corpora() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if BANKING.is_file():
        yield "banking77", [(row["anchor"], row["positive"]) for row in make_pairs(read_questions(BANKING), seed=0)]
    if DOCS.is_file():
        yield "docs", [(row["anchor"], row["positive"]) for row in pq.read_table(DOCS).to_pylist()]


def narrowed(vectors: np.ndarray) -> np.ndarray:
    """As of a guide whose scores lie close together: a direction that all texts share is added."""
    mean = vectors.mean(axis=0)
    return unit(unit(vectors - mean) + NARROW * mean / np.linalg.norm(mean)).astype(np.float32)


def rows_of(name: str, vectors: np.ndarray, rows: np.ndarray) -> list[str]:
    batches = Batches(rows)
    exact = list(batches.decisions(vectors))
    scores = np.quantile(vectors[:2000] @ vectors[2000:4000].T, [0.01, 0.99])
    lines = []
    for rounding, act in ROUNDINGS.items():
        shares = " | ".join(f"{1e4 * share:.2f}" for share in batches.shares(act(vectors), exact))
        lines.append(f"| {name}, scores {scores[0]:.2f} to {scores[1]:.2f} | {rounding} | {shares} |")
        say(lines[-1])
    return lines


def main() -> None:
    torch.set_num_threads(2)
    lines = []
    for corpus, pairs in corpora():
        for guide in (STUDENT, GUIDE):
            if guide == GUIDE and (corpus != "banking77" or not Path(GUIDE).is_dir()):
                continue
            name = f"{corpus}, {'all-mpnet-base-v2' if guide == GUIDE else 'all-MiniLM-L6-v2'}"
            vectors, rows = embedded(pairs[: LARGE_GUIDE_PAIRS if guide == GUIDE else None], guide, corpus)
            lines += rows_of(name, vectors, rows)
            if (corpus, guide) == ("banking77", STUDENT):
                lines += rows_of(f"{name}, narrowed", narrowed(vectors), rows)
    page = (REPOSITORY / "tests" / "bench" / "rounding_page.md").read_text(encoding="utf-8")
    (REPOSITORY / "docs" / "SMALLER.md").write_text(page.replace("{rows}", "\n".join(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
