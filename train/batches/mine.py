"""`gistcache mine`: the hard negatives that training draws, as files for other trainers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np
from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.guide_index.texts import Texts
from ...shared.progress import console, step
from ..loss.judges import make_judge
from ..loss.reranker_judge import RerankerJudge
from ..settings import MineSettings
from .hard_negatives import HardNegatives
from .mined_files import FLAG_EMBEDDING, Mined, joined, n_tuple_schema, n_tuples, write_rows

Format = Literal["n-tuple", "flagembedding"]

BLOCK_PAIRS = 1_024


def mine(index: str, *, settings: MineSettings) -> CommandResult:
    """Write the hard negatives that `gistcache train` draws with the same flags and seed.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    written, left_out, lacking = mine_index(GuideIndex.open(index), settings)
    tail = f"; {left_out:,} {lacking} and are left out" if left_out else ""
    figures = {"out": str(settings.out), "rows": written, "left_out": left_out}
    return CommandResult(figures, (Text(f"{settings.out}: {written:,} rows{tail}"),))


def mine_index(index: GuideIndex, settings: MineSettings) -> tuple[int, int, str]:
    """Write the file, part by part; returns how many rows it has, how many are left out, and what these lack.

    Raises:
        GistcacheError: Settings do not go together, or no row is left.
    """
    judging, wanted = settings.judging, settings.mining.hard_negatives
    judge = make_judge(judging, index)
    scores = RerankerScores.open(settings.rescored, index) if settings.rescored else None
    reranker = RerankerJudge(scores, judging.margin, judging.margin_strategy) if scores else None
    hard = HardNegatives(index, settings.mining, judge, settings.seed, reranker)
    hard.epoch = settings.epoch
    console.print(hard.told(np.arange(len(index))), highlight=False)
    pairs = _mined(index, hard, scores)
    if settings.format == "n-tuple":
        written, left_out = write_rows(n_tuples(pairs, wanted), n_tuple_schema(wanted), settings.out)
        lacking = f"pairs have fewer than {wanted} negatives"
    else:
        written, left_out = write_rows(joined(pairs), FLAG_EMBEDDING, settings.out)
        lacking = "anchors have no negative"
    return written, left_out, lacking


def _mined(index: GuideIndex, hard: HardNegatives, reranker_scores: RerankerScores | None) -> Iterator[Mined]:
    """Every pair in the order of ids."""
    texts = Texts(index)
    with step("mine", len(index), "pairs") as advance:
        for table in index.scores(["pair_id", "positive_score"]):
            for start in range(0, table.num_rows, BLOCK_PAIRS):
                labels, scores = (column.to_numpy() for column in table.slice(start, BLOCK_PAIRS).columns)
                own = reranker_scores.positive_scores(labels) if reranker_scores else scores
                yield from _block(index, texts, hard, labels, own)
                advance(len(labels))


def _block(
    index: GuideIndex, texts: Texts, hard: HardNegatives, labels: np.ndarray, positive_scores: np.ndarray
) -> Iterator[Mined]:
    ids, (drawn, scores) = index.pairs(labels, 0), hard.draw(labels)
    held = drawn >= 0
    negatives = iter(texts.take(drawn[held]).to_pylist() if held.any() else [])
    found = zip(
        ids.anchors.tolist(),
        texts.take(ids.anchors).to_pylist(),
        texts.take(ids.positives).to_pylist(),
        positive_scores.tolist(),
        strict=True,
    )
    for row, pair in enumerate(found):
        yield Mined(*pair, list(islice(negatives, int(held[row].sum()))), scores[row][held[row]].tolist())
