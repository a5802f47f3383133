"""The pairs of an index: their text ids, and their texts as a memory-mapped ``datasets.Dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ..storage.files import atomic_write
from .texts import OpenedFolder, Texts

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_ROWS = 131_072  # many: opening the file touches each batch, and maps pages around it


class PairIds(NamedTuple):
    """The text ids of B pairs.

    Attributes:
        anchors: (B,) int64.
        positives: (B,) int64.
        negatives: (B, K) int64; -1 where a pair has fewer than K.
    """

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Text ids (B,) of each data-set column: anchor, positive, negative_1 ...

        A pair with fewer negatives repeats its positive in their place; the loss masks these candidates.
        """
        filled = np.where(self.negatives < 0, self.positives[:, None], self.negatives)
        negatives = {f"negative_{k + 1}": filled[:, k] for k in range(filled.shape[1])}
        return {"anchor": self.anchors, "positive": self.positives} | negatives


class PairSource(OpenedFolder, Protocol):
    """An index folder whose pairs have been opened; a GuideIndex is one."""

    def __len__(self) -> int: ...

    def pairs(self, pair_ids: np.ndarray, negatives: int | None = None) -> PairIds:
        """The text ids of pairs."""
        ...


def pair_dataset(index: PairSource, negatives: int) -> Dataset:
    """Write the pairs once to the data sets cache, under the manifest's checksum, and map the file.

    Args:
        index: An open index.
        negatives: How many negative columns.

    Returns:
        Columns anchor, positive, negative_1 .. negative_K (large strings) and label (int64, the pair id).
    """
    from datasets import Dataset, config

    path = Path(config.HF_DATASETS_CACHE) / "gistcache" / f"{index.manifest.key}-{negatives}.arrow"
    if not path.is_file():
        with (
            atomic_write(path, locked=False) as partial,
            pa.OSFile(str(partial), "wb") as file,
            pa.ipc.new_stream(file, _schema(negatives)) as writer,
        ):
            texts, labels = Texts(index), np.arange(len(index))
            for start in range(0, len(index), BATCH_ROWS):
                writer.write_table(_table(index, texts, labels[start : start + BATCH_ROWS], negatives))
    return Dataset.from_file(str(path))


def pair_rows(index: PairSource, labels: np.ndarray, negatives: int) -> Dataset:
    """Some pairs alone, by their ids (n,), with the same columns, in memory."""
    from datasets import Dataset

    return Dataset(_table(index, Texts(index), labels, negatives))


def _schema(negatives: int) -> pa.Schema:
    names = ["anchor", "positive", *(f"negative_{k + 1}" for k in range(negatives))]
    return pa.schema([(name, pa.large_string()) for name in names] + [("label", pa.int64())])


def _table(index: PairSource, texts: Texts, labels: np.ndarray, negatives: int) -> pa.Table:
    ids = list(index.pairs(labels, negatives).columns().values())
    joined, rows = texts.take(np.concatenate(ids)), len(labels)
    columns = [joined.slice(k * rows, rows) for k in range(len(ids))]
    return pa.table([*columns, pa.array(labels)], schema=_schema(negatives))
