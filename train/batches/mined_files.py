"""Mined pairs in the forms of sentence-transformers and FlagEmbedding, written whole as Parquet or JSONL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ...shared.errors import SettingsError
from ...shared.storage.files import atomic_write

Row = dict[str, Any]

ROW_GROUP = 8_192
TEXT = pa.large_string()
FLAG_EMBEDDING = pa.schema(
    {
        "query": TEXT,
        "pos": pa.list_(TEXT),
        "neg": pa.list_(TEXT),
        "pos_scores": pa.list_(pa.float32()),
        "neg_scores": pa.list_(pa.float32()),
    }
)


class Mined(NamedTuple):
    """One pair with its negatives, closest or first drawn first."""

    anchor_id: int
    anchor: str
    positive: str
    positive_score: float
    negatives: list[str]
    negative_scores: list[float]


def n_tuple_schema(negatives: int) -> pa.Schema:
    """The columns of sentence-transformers' form."""
    return pa.schema({name: TEXT for name in ("anchor", "positive", *_names(negatives))})


def n_tuples(pairs: Iterable[Mined], negatives: int) -> Iterator[Row | None]:
    """A row a pair, as ``mine_hard_negatives(output_format="n-tuple")`` of sentence-transformers forms them.

    Yields:
        None for a pair with fewer negatives: every row of that form has all columns.
    """
    for pair in pairs:
        row = {"anchor": pair.anchor, "positive": pair.positive}
        full = len(pair.negatives) == negatives
        yield row | dict(zip(_names(negatives), pair.negatives, strict=True)) if full else None


def _names(negatives: int) -> list[str]:
    return [f"negative_{k + 1}" for k in range(negatives)]


def joined(pairs: Iterable[Mined]) -> Iterator[Row | None]:
    """A row an anchor, as FlagEmbedding's trainers read them; the pairs of an anchor stand together.

    Yields:
        None for an anchor without a negative: FlagEmbedding draws from each row's.
    """
    for _, group in groupby(pairs, key=lambda pair: pair.anchor_id):
        found = list(group)
        negatives = {
            text: score for pair in found for text, score in zip(pair.negatives, pair.negative_scores, strict=True)
        }
        positives = {pair.positive: pair.positive_score for pair in found}
        row = {
            "query": found[0].anchor,
            "pos": list(positives),
            "neg": list(negatives),
            "pos_scores": list(positives.values()),
            "neg_scores": list(negatives.values()),
        }
        yield row if negatives else None


def write_rows(rows: Iterator[Row | None], schema: pa.Schema, out: Path) -> tuple[int, int]:
    """Write a file by its suffix, whole or not at all.

    Args:
        rows: None for one that is left out.
        schema: Their columns.
        out: ``.parquet`` or ``.jsonl``.

    Returns:
        How many rows it has, and how many were left out.

    Raises:
        SettingsError: There is no row.
    """
    written = left_out = 0
    with atomic_write(out, locked=False) as partial, _writer(partial, schema, out.suffix) as write:
        while block := list(islice(rows, ROW_GROUP)):
            kept = [row for row in block if row is not None]
            write(kept)
            written, left_out = written + len(kept), left_out + len(block) - len(kept)
        if not written:
            raise SettingsError("No row has enough negatives", where=str(out), fix="ask for fewer of them")
    return written, left_out


@contextmanager
def _writer(path: Path, schema: pa.Schema, suffix: str) -> Iterator[Callable[[list[Row]], None]]:
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))
    else:
        with path.open("w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
