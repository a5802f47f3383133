"""The pairs of an index as a memory-mapped ``datasets.Dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..storage.files import atomic_write
from .texts import Texts

if TYPE_CHECKING:
    from datasets import Dataset

    from .guide_index import GuideIndex

BATCH_ROWS = 131_072  # many: opening the file touches each batch, and maps pages around it


def pair_dataset(index: GuideIndex, negatives: int) -> Dataset:
    """Materialise the pairs once in the data sets cache, keyed by the manifest's checksum, and map the file.

    Args:
        index: An open index.
        negatives: How many negative columns.

    Returns:
        Columns anchor, positive, negative_1 .. negative_K (large strings) and label (int64, the pair id).
    """
    from datasets import Dataset, config

    key = index.manifest.key
    path = Path(config.HF_DATASETS_CACHE) / "gistcache" / f"{key}-{negatives}.arrow"
    if not _holds_all(path, index):
        with (
            atomic_write(path, locked=False) as partial,
            pa.OSFile(str(partial), "wb") as file,
            pa.ipc.new_stream(file, _schema(negatives)) as writer,
        ):
            texts, labels = Texts(index), np.arange(len(index))
            for start in range(0, len(index), BATCH_ROWS):
                writer.write_table(_table(index, texts, labels[start : start + BATCH_ROWS], negatives))
    return Dataset.from_file(str(path))


def pair_rows(index: GuideIndex, labels: np.ndarray, negatives: int) -> Dataset:
    """Some pairs alone, by their ids (n,), with the same columns, in memory."""
    from datasets import Dataset

    return Dataset(_table(index, Texts(index), labels, negatives))


def _holds_all(path: Path, index: GuideIndex) -> bool:
    """Whether the file is there and has every pair."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return sum(len(batch) for batch in stream) == len(index)
    except (OSError, pa.ArrowException):
        return False


def _schema(negatives: int) -> pa.Schema:
    names = ["anchor", "positive", *(f"negative_{k + 1}" for k in range(negatives))]
    return pa.schema([(name, pa.large_string()) for name in names] + [("label", pa.int64())])


def _table(index: GuideIndex, texts: Texts, labels: np.ndarray, negatives: int) -> pa.Table:
    columns, rows = list(index.pairs(labels, negatives).columns().values()), len(labels)
    taken = texts.take(np.concatenate(columns))
    parts = [taken.slice(k * rows, rows) for k in range(len(columns))]
    return pa.table([*parts, pa.array(labels)], schema=_schema(negatives))
