"""Mining: the hard negatives that training draws, as Parquet or JSONL for other trainers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.reranker_scores import RerankerScores
from ...shared.guide_index.texts import Texts
from ...shared.progress import console, step
from ...shared.storage.files import atomic_write
from ..loss.judges import make_judge
from ..loss.reranker_judge import RerankerJudge
from ..settings import MineSettings
from .hard_negatives import HardNegatives

Row = dict[str, Any]

BLOCK_PAIRS = 1_024
ROW_GROUP = 8_192
TEXT, SCORES = pa.large_string(), pa.list_(pa.float32())
FLAG_EMBEDDING = pa.schema(
    {"query": TEXT, "pos": pa.list_(TEXT), "neg": pa.list_(TEXT), "pos_scores": SCORES, "neg_scores": SCORES}
)


class MinedPair(NamedTuple):
    """One pair with its negatives and their scores, closest or first drawn first."""

    anchor_id: int
    anchor: str
    positive: str
    positive_score: float
    negatives: list[str]
    negative_scores: list[float]


def mine_index(index: GuideIndex, settings: MineSettings) -> tuple[int, int]:
    """Write a file of mined pairs, whole or not at all.

    Returns:
        How many rows the file has, and how many pairs or anchors lack the negatives for one.

    Raises:
        GistcacheError: Settings do not go together, or no row is left.
    """
    scores = RerankerScores.open(settings.rescored, index) if settings.rescored else None
    reranker = RerankerJudge(scores, settings.judging.margin, settings.judging.margin_strategy) if scores else None
    hard = HardNegatives(index, settings.mining, make_judge(settings.judging, index), settings.seed, reranker)
    hard.epoch = settings.epoch
    console.print(hard.summary(np.arange(len(index))), highlight=False)
    pairs = _mined_pairs(index, hard, scores)
    if settings.format == "flagembedding":
        return _write_rows(flag_embedding_rows(pairs), FLAG_EMBEDDING, settings.out)
    negatives = (f"negative_{k + 1}" for k in range(settings.mining.hard_negatives))
    schema = pa.schema([(name, TEXT) for name in ("anchor", "positive", *negatives)])
    return _write_rows(_n_tuple_rows(pairs, schema.names), schema, settings.out)


def _mined_pairs(index: GuideIndex, hard: HardNegatives, reranked: RerankerScores | None) -> Iterator[MinedPair]:
    """Yield every pair in the order of ids."""
    texts = Texts(index)
    with step("mine", len(index), "pairs") as advance:
        for table in index.scores(["pair_id", "positive_score"]):
            for block in table.to_batches(max_chunksize=BLOCK_PAIRS):
                labels, of_guide = (column.to_numpy() for column in block.columns)
                of_positives = reranked.positive_scores(labels) if reranked else of_guide
                pairs, (ids, scores) = index.pairs(labels, 0), hard.draw(labels)
                negatives = iter(texts.take(ids[ids >= 0]).to_pylist())
                anchors, positives = (texts.take(role).to_pylist() for role in (pairs.anchors, pairs.positives))
                columns = zip(pairs.anchors.tolist(), anchors, positives, of_positives.tolist(), strict=True)
                for pair, present, own in zip(columns, ids >= 0, scores, strict=True):
                    yield MinedPair(*pair, list(islice(negatives, int(present.sum()))), own[present].tolist())
                advance(len(labels))


def _n_tuple_rows(pairs: Iterable[MinedPair], names: list[str]) -> Iterator[Row | None]:
    """Form a row a pair, as sentence-transformers' trainers read them; None for a pair with fewer negatives."""
    for pair in pairs:
        row = (pair.anchor, pair.positive, *pair.negatives)
        yield dict(zip(names, row, strict=True)) if len(row) == len(names) else None


def flag_embedding_rows(pairs: Iterable[MinedPair]) -> Iterator[Row | None]:
    """Form a row an anchor, as FlagEmbedding's trainers read them; None for an anchor without a negative.

    The pairs of an anchor must stand together.
    """
    for _, group in groupby(pairs, key=lambda pair: pair.anchor_id):
        of_anchor, negatives = list(group), {}
        positives = {pair.positive: pair.positive_score for pair in of_anchor}
        for pair in of_anchor:
            negatives |= dict(zip(pair.negatives, pair.negative_scores, strict=True))
        texts = {"query": of_anchor[0].anchor, "pos": list(positives), "neg": list(negatives)}
        scores = {"pos_scores": list(positives.values()), "neg_scores": list(negatives.values())}
        yield texts | scores if negatives else None


def _write_rows(rows: Iterator[Row | None], schema: pa.Schema, out: Path) -> tuple[int, int]:
    """Write the rows that are not None; returns how many are, and how many are None."""
    written = left_out = 0
    with atomic_write(out, locked=False) as partial, _writer(partial, schema, out.suffix) as write:
        while block := list(islice(rows, ROW_GROUP)):
            full = [row for row in block if row is not None]
            write(full)
            written, left_out = written + len(full), left_out + len(block) - len(full)
        if not written:
            raise SettingsError("No row has enough negatives", where=str(out), fix="ask for fewer of them")
    return written, left_out


@contextmanager
def _writer(path: Path, schema: pa.Schema, suffix: str) -> Iterator[Callable[[list[Row]], None]]:
    """Yield a function that appends rows to a new file."""
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))
    else:
        with path.open("w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
