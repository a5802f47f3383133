"""Pairs -> text ids, against plain dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from gistcache.precompute.corpus import Corpus, read_corpus
from gistcache.precompute.text_hash import hash_text
from gistcache.shared.data.pairs import Pair, Reject
from gistcache.shared.errors import InputError


def random_rows(count: int, seed: int = 0) -> list[Pair]:
    """Pairs over few texts, so that texts, roles and whole pairs repeat."""
    random = np.random.default_rng(seed)
    texts = [f"text {n}" for n in range(40)]

    def some(count: int) -> tuple[str, ...]:
        return tuple(texts[i] for i in random.choice(40, size=count))

    return [Pair(*some(2), some(int(random.integers(3))), random.choice(["x", "y"])) for _ in range(count)]


def test_ids_equal_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr("gistcache.precompute.corpus.CHUNK_PAIRS", 7)
    rows = random_rows(300)
    corpus = read_corpus([*rows, Reject("f", 3, "empty text")])
    kept = list(dict.fromkeys(rows))
    queries = list(dict.fromkeys(pair.anchor for pair in kept))
    documents = list(dict.fromkeys(text for pair in kept for text in (pair.positive, *pair.negatives)))
    ids = {text: number for number, text in enumerate(documents, len(queries))}
    assert corpus.duplicates == len(rows) - len(kept)
    assert corpus.queries == len(queries)
    assert corpus.texts["text"].to_list() == queries + documents
    assert corpus.texts["role"].to_list() == ["query"] * len(queries) + ["document"] * len(documents)
    assert corpus.texts["text_hash"].to_list() == [hash_text(text) for text in queries + documents]
    first = {text: number for number, text in reversed(list(enumerate(queries + documents)))}
    assert corpus.texts["content_id"].to_list() == [first[text] for text in queries + documents]
    assert corpus.pairs.rows() == [
        (number, queries.index(p.anchor), ids[p.positive], [ids[n] for n in p.negatives], p.task)
        for number, p in enumerate(sorted(kept, key=lambda p: queries.index(p.anchor)))
    ]
    assert corpus.rejected.rows() == [("f", 3, "empty text")]


def changed(corpus_rows: list[Pair]) -> list[list[Pair]]:
    first, *others = corpus_rows
    return [
        others,
        [first._replace(task="z"), *others],
        [first._replace(task=None), *others],
        [first._replace(anchor="new"), *others],
        [first._replace(negatives=(*first.negatives, "text 1")), *others],
        [*others, first],
    ]


def test_the_fingerprint_is_of_the_content_and_sees_every_change():
    rows = random_rows(20, seed=1)
    whole = read_corpus(rows).fingerprint()
    assert read_corpus(iter(rows)).fingerprint() == whole
    assert all(read_corpus(other).fingerprint()["sha256"] != whole["sha256"] for other in changed(rows))


def test_parts_cover_every_row_once_and_hold_one_role():
    corpus = read_corpus(random_rows(100, seed=2))
    parts = list(corpus.shards("texts", 9))
    assert [text for part in parts for text in part["text_id"].to_pylist()] == list(range(corpus.texts.height))
    assert all(len(set(part["role"].to_pylist())) == 1 for part in parts)
    assert sum(part.num_rows for part in corpus.shards("pairs", 9)) == corpus.pairs.height


def test_no_pair_at_all_is_an_error():
    with pytest.raises(InputError, match=r"empty\.jsonl"):
        read_corpus([], "empty.jsonl")
    assert isinstance(read_corpus(random_rows(1)), Corpus)
