"""Pairs -> a corpus: exact duplicates dropped, unique (role, text) numbered, pairs as text ids.

Queries (anchors) take the ids from 0, documents (positives and negatives) the ids after them, each in order of first
appearance. Pairs are numbered by anchor, those of one anchor in the order of the input. The same pairs give the same
ids, whatever file format they come from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ..shared.data.pairs import Pair, Reject
from ..shared.errors import InputError
from ..shared.guide_index.layout import LOOKUP, REJECTED, SCHEMAS, ShardKind
from ..shared.progress import step
from .text_hash import hash_text

CORPUS_KINDS: tuple[ShardKind, ...] = ("texts", "pairs", "contents", "lookup", "negatives")
CHUNK_PAIRS = 65_536
REJECT_COLUMNS = {"file": pl.Categorical(), "line": pl.Int64(), "reason": pl.Categorical()}  # few names, many rows
PAIR_COLUMNS = {"anchor": pl.String, "positive": pl.String, "negatives": pl.List(pl.String), "task": pl.String}


@dataclass(frozen=True)
class Corpus:
    """Unique texts and the pairs over them.

    Attributes:
        texts: text_id, role, text, text_hash, content_id, twin_id (the same text in the other role, or -1); rows in
            text_id order, queries first.
        pairs: pair_id, anchor_id, positive_id, negative_ids, task; rows in pair_id order, which is anchor_id order.
        queries: The number of queries; their ids are 0 .. queries - 1.
        rejected: file, line, reason of every rejected row.
        duplicates: The number of exact duplicates of a pair that were dropped.
    """

    texts: pl.DataFrame
    pairs: pl.DataFrame
    queries: int
    rejected: pl.DataFrame
    duplicates: int

    def shards(self, kind: ShardKind, rows: int) -> Iterator[pa.Table | np.ndarray]:
        """The shards of a kind of ``CORPUS_KINDS``, of at most ``rows`` texts of one role, or pairs; see ``layout``."""
        if kind in ("texts", "contents"):
            frame, ranges = self.texts, _ranges(0, self.queries, rows) + _ranges(self.queries, self.texts.height, rows)
        else:
            frame, ranges = self._lookup() if kind == "lookup" else self.pairs, _ranges(0, self.pairs.height, rows)
        for part in (frame[start:stop] for start, stop in ranges):
            if kind == "contents":
                yield part.select("content_id", "twin_id").to_numpy()
            elif kind == "lookup":
                yield part.to_numpy(structured=True).astype(LOOKUP)
            elif kind == "negatives":
                yield part["negative_ids"].explode(empty_as_null=False).to_numpy().astype(np.int64)
            else:
                yield part.select(SCHEMAS[kind].names).to_arrow().cast(SCHEMAS[kind])

    def _lookup(self) -> pl.DataFrame:
        counts = pl.col("negative_ids").list.len().cast(pl.Int64)
        tasks = self.pairs["task"].drop_nulls().unique(maintain_order=True)
        numbered = self.pairs.lazy().select(
            pl.col("anchor_id").alias("anchor"),
            pl.col("positive_id").alias("positive"),
            pl.col("pair_id").first().over("anchor_id").alias("group"),
            pl.len().over("anchor_id").alias("group_size"),
            (counts.cum_sum() - counts).alias("negatives"),
            counts.alias("negative_count"),
            pl.col("task").replace_strict(tasks, range(len(tasks)), default=-1).alias("task"),
        )
        return numbered.collect().select(LOOKUP.names)  # records are converted field by field, in order

    def rejected_table(self) -> pa.Table:
        """The rejected rows, see ``layout.REJECTED``."""
        return self.rejected.cast({"file": pl.String, "reason": pl.String}).to_arrow().cast(REJECTED)

    def fingerprint(self) -> dict[str, Any]:
        """Hash of the texts and pairs in order, and their numbers."""
        digest = hashlib.sha256(self.queries.to_bytes(8, "little"))
        for text_hash in self.texts["text_hash"]:
            digest.update(text_hash)
        for name in ("anchor_id", "positive_id"):
            digest.update(self.pairs[name].to_numpy().tobytes())
        counts = self.pairs["negative_ids"].list.len().to_numpy()
        digest.update(counts.tobytes())
        digest.update(self.pairs["negative_ids"].explode(empty_as_null=False).to_numpy().tobytes())
        for task in self.pairs["task"]:
            digest.update(b"\0" if task is None else b"\1" + hash_text(task))
        return {
            "sha256": digest.hexdigest(),
            "pairs": self.pairs.height,
            "negatives": int(counts.sum()),
            "max_negatives": int(counts.max()),
            "queries": self.queries,
            "documents": self.texts.height - self.queries,
            "duplicates": self.duplicates,
            "rejected": dict(sorted(Counter(self.rejected["reason"]).items())),
        }


def _ranges(start: int, stop: int, rows: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + rows, stop)) for begin in range(start, stop, rows)]


def read_corpus(rows: Iterable[Pair | Reject], where: str = "") -> Corpus:
    """Collect pairs and rejected rows from ``where``, as a message names it, into a corpus.

    Raises:
        InputError: There is no pair.
    """
    chunks, rejects, count, rows = [], [], 0, iter(rows)
    with step("read pairs", None, "rows") as advance:
        while chunk := list(islice(rows, CHUNK_PAIRS)):
            pairs = [row for row in chunk if isinstance(row, Pair)]
            rejected = [row for row in chunk if isinstance(row, Reject)]
            rejects.append(pl.DataFrame(rejected, schema=REJECT_COLUMNS, orient="row"))
            count += len(pairs)
            # Also here, so that a file of one line a million times does not fill the memory.
            frame = pl.DataFrame(pairs, schema=PAIR_COLUMNS, orient="row")
            chunks.append(frame.unique(maintain_order=True))
            advance(len(chunk))
    if not count:
        raise InputError("The input holds no pair", where=where, fix="give files that are not empty")
    pairs = pl.concat(chunks).unique(maintain_order=True)
    return _number(pairs, pl.concat(rejects), count - pairs.height)


def _number(pairs: pl.DataFrame, rejected: pl.DataFrame, duplicates: int) -> Corpus:
    """Give texts and pairs their ids."""
    queries = _with_ids(pairs.select(text="anchor").unique(maintain_order=True), "text_id")
    documents = pairs.select(text=pl.concat_list("positive", "negatives")).explode("text").unique(maintain_order=True)
    documents = _with_ids(documents, "text_id", queries.height)
    for name, texts in (("anchor", queries), ("positive", documents)):
        ids = texts.rename({"text": name, "text_id": f"{name}_id"})
        pairs = pairs.join(ids, on=name, how="left", maintain_order="left")
    pairs = _with_ids(pairs.sort("anchor_id", maintain_order=True), "pair_id")
    negatives = pairs.select("pair_id", text="negatives").explode("text", empty_as_null=False)
    negatives = negatives.join(documents, on="text", how="left", maintain_order="left")
    negatives = negatives.group_by("pair_id").agg(negative_ids="text_id")  # in the order of each pair's own
    negative_ids = pl.col("negative_ids").fill_null(pl.lit([], pl.List(pl.Int64)))
    pairs = pairs.join(negatives, on="pair_id", how="left", maintain_order="left")
    pairs = pairs.select("pair_id", "anchor_id", "positive_id", negative_ids, "task")
    return Corpus(_all_texts(queries, documents), pairs, queries.height, rejected, duplicates)


def _with_ids(frame: pl.DataFrame, name: str, first: int = 0) -> pl.DataFrame:
    return frame.with_row_index(name, first).with_columns(pl.col(name).cast(pl.Int64))


def _all_texts(queries: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """The texts of both roles; ``content_id`` is the first text id with the same text."""

    def of(role: str, own: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        joined = own.join(other.rename({"text_id": "twin_id"}), on="text", how="left", maintain_order="left")
        content = pl.min_horizontal("text_id", "twin_id")
        return joined.select(
            "text_id", "text", role=pl.lit(role), content_id=content, twin_id=pl.col("twin_id").fill_null(-1)
        )

    texts = pl.concat([of("query", queries, documents), of("document", documents, queries)])
    hashes = pl.Series([hash_text(text) for text in texts["text"]], dtype=pl.Binary)
    return texts.with_columns(text_hash=hashes)
