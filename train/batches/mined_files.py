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


class MinedPair(NamedTuple):
    """One pair with its negatives and their scores, closest or first drawn first."""

    anchor_id: int
    anchor: str
    positive: str
    positive_score: float
    negatives: list[str]
    negative_scores: list[float]


def n_tuple_schema(negatives: int) -> pa.Schema:
    """The columns of sentence-transformers' form: anchor, positive, negative_1 ... negative_N."""
    return pa.schema(
        [(name, TEXT) for name in ("anchor", "positive", *(f"negative_{k + 1}" for k in range(negatives)))]
    )


def n_tuple_rows(pairs: Iterable[MinedPair], negatives: int) -> Iterator[Row | None]:
    """Form a row a pair, as ``mine_hard_negatives(output_format="n-tuple")`` of sentence-transformers does.

    Yields:
        None for a pair with fewer negatives: every row of that form has all columns.
    """
    names = n_tuple_schema(negatives).names
    for pair in pairs:
        row = (pair.anchor, pair.positive, *pair.negatives)
        yield dict(zip(names, row, strict=True)) if len(row) == len(names) else None


def flag_embedding_schema() -> pa.Schema:
    """The columns of FlagEmbedding's form."""
    texts, scores = pa.list_(TEXT), pa.list_(pa.float32())
    return pa.schema({"query": TEXT, "pos": texts, "neg": texts, "pos_scores": scores, "neg_scores": scores})


def flag_embedding_rows(pairs: Iterable[MinedPair]) -> Iterator[Row | None]:
    """Form a row an anchor, as FlagEmbedding's trainers read them; the pairs of an anchor stand together.

    Yields:
        None for an anchor without a negative: FlagEmbedding draws from each row's.
    """
    for _, group in groupby(pairs, key=lambda pair: pair.anchor_id):
        of_anchor, negatives = list(group), {}
        positives = {pair.positive: pair.positive_score for pair in of_anchor}
        for pair in of_anchor:
            negatives |= dict(zip(pair.negatives, pair.negative_scores, strict=True))
        texts = {"query": of_anchor[0].anchor, "pos": list(positives), "neg": list(negatives)}
        scores = {"pos_scores": list(positives.values()), "neg_scores": list(negatives.values())}
        yield texts | scores if negatives else None


def write_rows(rows: Iterator[Row | None], schema: pa.Schema, out: Path) -> tuple[int, int]:
    """Write a file by its suffix, whole or not at all.

    Args:
        rows: None for a row that is left out.
        schema: Their columns.
        out: ``.parquet`` or ``.jsonl``.

    Returns:
        How many rows the file has, and how many were left out.

    Raises:
        SettingsError: There is no row.
    """
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
