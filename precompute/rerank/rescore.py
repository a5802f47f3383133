"""Stage 1, optional: a reranker scores each anchor with its positive, its negatives and its stored neighbors."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.layout import RESCORED
from ...shared.guide_index.manifest import refuse_differences
from ...shared.guide_index.ragged import as_lists, padded
from ...shared.guide_index.reranker_scores import RESCORED_FORMAT, RerankerScores, refuse_other_scores_format
from ...shared.guide_index.texts import Texts
from ...shared.progress import step
from ...shared.storage.integrity import FileRecord, write_checksummed
from ...shared.storage.journal import Journal
from ..output.lifecycle import refuse_foreign, unfinished
from ..output.store import Store
from .cross_encoder import Reranker
from .settings import RescoreSettings


def rescore_index(index: GuideIndex, settings: RescoreSettings) -> RerankerScores:
    """Write the scores of an index, or finish them, or confirm that they are complete.

    Raises:
        StaleIndexError: The folder holds scores of another index, reranker or settings; names each difference.
        GistcacheError: The reranker cannot be used, or the folder holds something else, or is being written.
    """
    store, reranker = Store.of(settings.out), Reranker(settings)
    request = {
        "rescored_format": RESCORED_FORMAT,
        "index": {"manifest": index.manifest.key},
        "reranker": reranker.fingerprint(),
        "settings": {"shard_rows": settings.shard_rows},
    }
    layout = store.layout
    if not layout.manifest.exists() or layout.building.exists():
        refuse_foreign(store, "reranker's scores")
        with unfinished(store, request, _refuse_other_scores) as journal:
            if not layout.manifest.exists():  # else killed after its last step, or finished by another process just now
                shards = _write_shards(index, reranker, store, journal, settings.shard_rows)
                write_checksummed(layout.manifest, request | {"parts": [asdict(record) for record in shards]})
            shutil.rmtree(layout.building)
    scores = RerankerScores.load(layout.root, index)
    _refuse_other_scores(store, scores.request, request)
    return scores


def _refuse_other_scores(store: Store, existing: dict[str, Any], requested: dict[str, Any]) -> None:
    refuse_other_scores_format(existing, store.root)
    what = "The folder holds scores made from something else"
    fix = "use another --out, or give the index, reranker and settings it was made with, or delete it"
    refuse_differences(existing, requested, "folder", what, where=str(store), fix=fix)


def _write_shards(index: GuideIndex, reranker: Reranker, store: Store, journal: Journal, rows: int) -> list[FileRecord]:
    """Write every shard, of at most ``rows`` pairs, that is not there yet."""
    texts, existing = Texts(index), sum(record.rows for record in journal.done.values())
    tables = index.scores(["pair_id", "neighbor_ids"])
    slices = (table.slice(start, rows) for table in tables for start in range(0, table.num_rows, rows))

    def write(number: int, pairs: pa.Table) -> FileRecord:
        record = store.commit_shard("rescored", number, rescored_table(index, texts, reranker, pairs))
        advance(record.rows)
        return record

    with step("rescore", len(index), "pairs", done=existing) as advance:
        return [
            journal.keep_or_make(store.layout.shard("rescored", number), partial(write, number, pairs))
            for number, pairs in enumerate(slices)
        ]


def rescored_table(index: GuideIndex, texts: Texts, reranker: Reranker, pairs: pa.Table) -> pa.Table:
    """Score pairs (``pair_id`` and ``neighbor_ids``), each anchor once with each document; see ``layout.RESCORED``."""
    ids = index.pairs(pairs["pair_id"].to_numpy())
    neighbors = padded(pairs["neighbor_ids"], int(index.manifest.request.settings["neighbors"]), -1, np.int64)
    documents = np.column_stack([ids.positives, ids.negatives, neighbors])
    present = documents >= 0
    anchors = np.broadcast_to(ids.anchors[:, None], documents.shape)
    inputs, place = np.unique(np.column_stack([anchors[present], documents[present]]), axis=0, return_inverse=True)
    scores = np.zeros(documents.shape, dtype=np.float32)
    scores[present] = reranker.scores(*(texts.take(column).to_pylist() for column in inputs.T))[place]

    def lists(columns: slice) -> pa.Array:
        return as_lists(scores[:, columns][present[:, columns]], present[:, columns].sum(axis=1))

    first_neighbor = 1 + ids.negatives.shape[1]
    negative_scores, neighbor_scores = lists(slice(1, first_neighbor)), lists(slice(first_neighbor, None))
    columns = [pairs["pair_id"].combine_chunks(), scores[:, 0], negative_scores, neighbor_scores]
    return pa.table(columns, schema=RESCORED)
