"""Mining: the hard negatives that training draws, as files for other trainers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.guide_index.texts import Texts
from ...shared.progress import console, step
from ..loss.judges import make_judge
from ..loss.reranker_judge import RerankerJudge
from ..settings import MineSettings
from .hard_negatives import HardNegatives
from .mined_files import MinedPair, flag_embedding_rows, flag_embedding_schema, n_tuple_rows, n_tuple_schema, write_rows

BLOCK_PAIRS = 1_024


class MiningResult(NamedTuple):
    """What a mined file holds.

    Attributes:
        rows: Rows of the file.
        left_out: How many pairs or anchors have no row.
        reason: Why they have none, for people.
    """

    rows: int
    left_out: int
    reason: str


def mine_index(index: GuideIndex, settings: MineSettings) -> MiningResult:
    """Write a file of mined pairs.

    Raises:
        GistcacheError: Settings do not go together, or no row is left.
    """
    count = settings.mining.hard_negatives
    scores = RerankerScores.open(settings.rescored, index) if settings.rescored else None
    hard = _hard_negatives(index, settings, scores)
    console.print(hard.summary(np.arange(len(index))), highlight=False)
    pairs = _mined_pairs(index, hard, scores)
    if settings.format == "n-tuple":
        rows = write_rows(n_tuple_rows(pairs, count), n_tuple_schema(count), settings.out)
        return MiningResult(*rows, f"pairs have fewer than {count} negatives")
    rows = write_rows(flag_embedding_rows(pairs), flag_embedding_schema(), settings.out)
    return MiningResult(*rows, "anchors have no negative")


def _hard_negatives(index: GuideIndex, settings: MineSettings, scores: RerankerScores | None) -> HardNegatives:
    """The hard negatives of the settings' epoch."""
    judging = settings.judging
    reranker = RerankerJudge(scores, judging.margin, judging.margin_strategy) if scores else None
    hard = HardNegatives(index, settings.mining, make_judge(judging, index), settings.seed, reranker)
    hard.epoch = settings.epoch
    return hard


def _mined_pairs(index: GuideIndex, hard: HardNegatives, scores: RerankerScores | None) -> Iterator[MinedPair]:
    """Yield every pair in the order of ids."""
    texts = Texts(index)
    with step("mine", len(index), "pairs") as advance:
        for table in index.scores(["pair_id", "positive_score"]):
            for block in table.to_batches(max_chunksize=BLOCK_PAIRS):
                labels, of_guide = (column.to_numpy() for column in block.columns)
                yield from _block(index, texts, hard, labels, scores.positive_scores(labels) if scores else of_guide)
                advance(len(labels))


def _block(
    index: GuideIndex, texts: Texts, hard: HardNegatives, labels: np.ndarray, positive_scores: np.ndarray
) -> Iterator[MinedPair]:
    """Yield some pairs (b,), given the scores of their positives (b,)."""
    pairs, (ids, scores) = index.pairs(labels, 0), hard.draw(labels)
    present = ids >= 0
    negatives = iter(texts.take(ids[present]).to_pylist() if present.any() else [])
    anchors, positives = (texts.take(role).to_pylist() for role in (pairs.anchors, pairs.positives))
    columns = zip(pairs.anchors.tolist(), anchors, positives, positive_scores.tolist(), strict=True)
    for row, pair in enumerate(columns):
        yield MinedPair(*pair, list(islice(negatives, int(present[row].sum()))), scores[row][present[row]].tolist())
