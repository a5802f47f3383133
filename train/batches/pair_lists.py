"""Pairs listed for people: a Parquet file with what is told of each, and its texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ...shared.storage.files import atomic_write


def write_pairs(index: GuideIndex, labels: np.ndarray, told: Mapping[str, np.ndarray], path: Path) -> None:
    """Write pair_id, what is told, anchor and positive of some pairs.

    Args:
        index: An open guide index.
        labels: (n,) pair ids.
        told: Columns (n,) by name.
        path: The Parquet file; its folder is made.
    """
    texts, ids = Texts(index), index.pairs(labels, 0)
    columns = {"pair_id": labels, **told}
    for name, taken in (("anchor", ids.anchors), ("positive", ids.positives)):
        columns[name] = texts.take(taken) if len(labels) else pa.array([], pa.large_string())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        pq.write_table(pa.table(columns), partial)
