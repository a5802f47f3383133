"""Consistency filtering: train only on pairs that the guide itself would have found.

Dai et al. 2022 (Promptagator, arXiv 2209.11755, section 3.2): a pair stays when its positive is among the K documents
closest to its anchor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.progress import console
from ..distributed import is_main_process
from .pair_lists import write_pairs

DROPPED = "dropped.parquet"


def kept_pairs(index: GuideIndex, rank: int | None, out: Path) -> np.ndarray:
    """The pair ids to train on: (n,) int64.

    Args:
        index: An open guide index.
        rank: K: a positive stays where fewer than K documents are closer to its anchor; None keeps every pair.
        out: Folder for ``dropped.parquet``, which lists the others: pair_id, positive_rank (documents that are closer),
            anchor, positive.

    Raises:
        SettingsError: Nothing is left, or the index does not know such ranks.
    """
    labels = np.arange(len(index))
    if rank is None:
        return labels
    manifest = index.manifest
    if rank > (stored := manifest.request.settings["neighbors"]) and not manifest.measured["search"]["exact"]:
        raise SettingsError(
            f"Inverted lists found the {stored} closest documents alone, so a rank ends there",
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
