"""How well the judges tell false negatives: precision and recall on Banking77, share removed on the docs pairs.

    python tests/bench/judges.py      with data and mpnet as for `make results`

Each guide as it is; the questions' intents are shown to nobody and say what a false negative is. Random pairs are
judged against each other; a text's density is measured exactly over all texts, as stage 1 does, for several K, and as
the mean of the first K scores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from banking77_scores import make_pairs, read_questions
from bench_data import DOCS, PUBLIC, STUDENT, gistcache
from gistcache.shared.candidates import PairVectors
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.loss.judges import GuideView, relatedness
from interleaved import WORK

SAMPLE, ROW_BLOCK = 3_000, 2_048
LARGEST_K = 300
SHARES = (1.0, 0.5, 0.25)
SAMPLED_TEXTS = (1 / 4, 1 / 16, 1 / 64)


def closest_scores(vectors: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(n, LARGEST_K) scores with the nearest other texts of the reference (row numbers), best first."""
    closest, columns = [], torch.full((len(vectors),), -1)
    columns[reference] = torch.arange(len(reference))
    for start in range(0, len(vectors), ROW_BLOCK):
        scores = vectors[start : start + ROW_BLOCK] @ vectors[reference].T
        own = columns[start : start + ROW_BLOCK]
        scores[torch.arange(len(scores))[own >= 0], own[own >= 0]] = -2
        closest.append(scores.topk(min(LARGEST_K, len(reference) - 1)).values)
    return torch.cat(closest)


class Corpus:
    """Pairs of an index with their guide vectors, their texts' closest scores, and a number that tells their class.

    ``share`` takes so many of the pairs; ``sampled`` measures density against so many of the texts.
    """

    def __init__(self, index: GuideIndex, classes: np.ndarray | None, share: float = 1.0, sampled: float = 1.0) -> None:
        random = np.random.default_rng(0)
        labels = np.sort(random.choice(len(index), size=int(share * len(index)), replace=False))
        ids = index.pairs(labels, 0)
        own = np.concatenate([ids.anchors, ids.positives])
        # Equal texts count once, whatever their role, as in stage 1.
        contents, first, back = np.unique(index.content_ids(own), return_index=True, return_inverse=True)
        vectors = torch.from_numpy(index.vectors(own[first]).astype(np.float32))
        self.sides = vectors[torch.from_numpy(back)].split(len(labels))
        size = round(sampled * len(vectors))
        reference = torch.from_numpy(np.sort(np.random.default_rng(1).choice(len(vectors), size=size, replace=False)))
        closest = closest_scores(vectors, reference)
        self.closest = [closest[torch.from_numpy(part)] for part in np.split(back, 2)]
        self.texts = len(contents)
        self.sample = torch.from_numpy(
            np.sort(random.choice(len(labels), size=min(SAMPLE, len(labels)), replace=False))
        )
        chosen = np.concatenate([ids.anchors[:, None], ids.positives[:, None]], axis=1)[self.sample.numpy()]
        contents_of = index.content_ids(chosen)
        same = (contents_of[:, None, :, None] == contents_of[None, :, None, :]).any(axis=(2, 3))
        self.counted = torch.from_numpy(~same)
        self.same = None if classes is None else self._same(classes[labels])

    def _same(self, classes: np.ndarray) -> torch.Tensor:
        chosen = torch.from_numpy(classes)[self.sample]
        return (chosen[:, None] == chosen) & self.counted

    def density(self, k: int, mean: bool) -> list[torch.Tensor]:
        return [side[:, :k].mean(1) if mean else side[:, k - 1] for side in self.closest]

    def related(self, k: int, mean: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """z of the sampled pairs; of all pairs, 4 times the score of anchor and positive less their mean density."""
        (anchors, positives), (ra, rp) = self.sides, self.density(k, mean)
        taken, none = self.sample, anchors[:0]
        view = GuideView(
            PairVectors(anchors[taken], positives[taken], none), PairVectors(ra[taken], rp[taken], none[:, 0])
        )
        own = 4 * ((anchors * positives).sum(1) - (ra + rp) / 2)
        return relatedness(view, torch.arange(len(taken)))[0], own

    def paper(self) -> torch.Tensor:
        """(3, n, n): the cells of anchors with positives, of anchors, and of positives."""
        anchors, positives = (side[self.sample].float() for side in self.sides)
        scores = torch.stack([anchors @ positives.T, anchors @ anchors.T, positives @ positives.T])
        return scores > scores[0].diagonal()[:, None]

    def summary(self, removed: torch.Tensor) -> str:
        counted = self.counted.expand_as(removed)
        removed = removed & counted
        share = removed.sum() / counted.sum()
        if self.same is None:
            return f"{100 * share:.2f} %"
        same = self.same.expand_as(removed)
        hits = (removed & same).sum()
        return f"{100 * share:.2f} % | {hits / max(1, int(removed.sum())):.2f} | {hits / same.sum():.2f}"


def banking77(data: Path, guide: str) -> tuple[GuideIndex, np.ndarray]:
    questions = read_questions(data / "banking77_train.csv")
    pairs = WORK / "banking77-pairs.jsonl"
    pairs.parent.mkdir(parents=True, exist_ok=True)
    pairs.write_text("".join(json.dumps(row) + "\n" for row in make_pairs(questions, 0)), encoding="utf-8")
    index = built(pairs, guide)
    intents = {question.text: question.intent for question in questions}
    return index, np.unique([intents[text] for text in index.to_dataset(0)["anchor"][:]], return_inverse=True)[1]


def built(pairs: Path, guide: str) -> GuideIndex:
    out = WORK / f"judges-{pairs.stem}-{Path(guide).name.replace(':', '-')}"
    gistcache("index", pairs, "--guide", guide, "--out", out)
    return GuideIndex.open(out)


def rows_of(name: str, corpus: Corpus, ks: tuple[int, ...], quantiles: tuple[float, ...]) -> list[str]:
    lines = [f"| {name} | paper, margin 0 | | {corpus.summary(corpus.paper())} |"]
    for mean in (False, True):
        for k in ks:
            related, own = corpus.related(k, mean)
            for quantile in quantiles:
                threshold = float(own.quantile(quantile))
                density = f"mean of the first {k}" if mean else f"K = {k}"
                summary = corpus.summary(related > threshold)
                lines.append(f"| {name} | {density}, quantile {quantile} | {threshold:.2f} | {summary} |")
    return lines


def examples(index: GuideIndex, corpus: Corpus, count: int = 8) -> list[str]:
    """Docs pairs just above and just below the threshold."""
    related, own = corpus.related(100, mean=False)
    threshold, texts = float(own.quantile(0.5)), index.to_dataset(0)["anchor"][:]
    upper = torch.triu(corpus.counted, 1)
    order = torch.where(upper, (related - threshold).abs(), torch.inf).flatten().argsort()[:count]
    most = torch.where(upper, related, -torch.inf).flatten().argsort(descending=True)[:count]
    lines = []
    for cell in torch.cat([most, order]).tolist():
        row, column = divmod(cell, len(related))
        pair = [texts[int(corpus.sample[place])][:70].replace("\n", " ") for place in (row, column)]
        lines.append(f"z = {float(related[row, column]):.2f} (threshold {threshold:.2f}): {pair[0]} / {pair[1]}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=PUBLIC, help="the public data")
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    ks, quantiles = (10, 30, 100, 300), (0.25, 0.5, 0.75)
    lines = []
    for guide in ("data/models/all-mpnet-base-v2", STUDENT):
        index, classes = banking77(args.data, guide)
        lines += rows_of(f"Banking77, {Path(guide).name}", Corpus(index, classes), ks, quantiles)
        for share in SHARES[1:]:
            corpus = Corpus(index, classes, share)
            lines += rows_of(f"a share of {share}, {Path(guide).name}", corpus, (30, 100), (0.5,))
        for sampled in SAMPLED_TEXTS:  # the K-th nearest of all is the (K x share)-th nearest of a sample
            corpus, rank = Corpus(index, classes, sampled=sampled), max(1, round(100 * sampled))
            lines += rows_of(f"density from {sampled:.3f} of the texts, {Path(guide).name}", corpus, (rank,), (0.5,))
    index = built(args.docs, STUDENT)
    corpus = Corpus(index, None)
    lines += rows_of("docs pairs", corpus, ks, quantiles)
    print("\n".join(lines + examples(index, corpus)))


if __name__ == "__main__":
    main()
