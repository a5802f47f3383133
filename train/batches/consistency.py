"""Consistency filtering: train only on pairs that the guide itself would have found.

Dai et al. 2022 (Promptagator, arXiv 2209.11755, section 3.2): a pair stays when its positive is among the K documents
closest to its anchor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ...shared.progress import console
from ...shared.storage.files import atomic_write
from ..distributed import is_main_process

DROPPED = "dropped.parquet"


def consistent_pairs(index: GuideIndex, rank: int | None, out: Path) -> np.ndarray:
    """Choose the pairs to train on.

    Args:
        index: An open guide index.
        rank: K: a pair stays where fewer than K documents are closer to its anchor than its positive; None keeps all.
        out: Folder for ``dropped.parquet``, which lists the others.

    Returns:
        (n,) int64 pair ids, ascending.

    Raises:
        SettingsError: No pair is left, or the index does not know such ranks.
    """
    labels = np.arange(len(index))
    if rank is None:
        return labels
    manifest = index.manifest
    if rank > (stored := manifest.request.settings["neighbors"]) and not manifest.measured["search"]["exact"]:
        raise SettingsError(
            f"An index searched by inverted lists knows ranks up to its {stored} neighbours only",
            where=f"--keep-positive-rank {rank}",
            fix=f"give {stored} or less, or build the index with a greater --neighbors or --exact-limit",
        )
    ranks = np.concatenate([table["positive_rank"].to_numpy() for table in index.scores(["positive_rank"])])
    dropped = labels[ranks >= rank]
    if len(dropped) == len(labels):
        raise SettingsError("No pair's positive has that rank", where=f"--keep-positive-rank {rank}", fix="give more")
    if is_main_process():
        write_pairs(index, dropped, {"positive_rank": ranks[dropped]}, out / DROPPED)
    console.print(f"{len(dropped):,} of {len(labels):,} pairs are left out: {out / DROPPED}", highlight=False)
    return labels[ranks < rank]


def write_pairs(index: GuideIndex, labels: np.ndarray, columns: Mapping[str, np.ndarray], path: Path) -> None:
    """Write pairs (n,) with their texts as Parquet: pair_id, the given columns (n,), anchor, positive."""
    texts, ids = Texts(index), index.pairs(labels, 0)
    of_pairs = {"anchor": texts.take(ids.anchors), "positive": texts.take(ids.positives)}
    table = pa.table({"pair_id": labels, **columns, **of_pairs})
    with atomic_write(path) as partial:
        pq.write_table(table, partial)
