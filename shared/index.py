"""A finished guide index, opened for reading: vectors, pairs, scores, texts, known positives.

Opening maps the vectors and reads nothing of them; many processes may share one folder, also a read-only one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from .checked import refuse_damaged
from .errors import IndexFaultError
from .manifest import Manifest
from .ragged import Ragged, compact, offsets_of
from .schema import Layout, PartKind
from .tables import read_table
from .vectors import RowStore

if TYPE_CHECKING:
    from datasets import Dataset


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

        A pair with fewer negatives has its positive in their place; the loss leaves these cells out.
        """
        filled = np.where(self.negatives < 0, self.positives[:, None], self.negatives)
        named = {f"negative_{k + 1}": filled[:, k] for k in range(filled.shape[1])}
        return {"anchor": self.anchors, "positive": self.positives} | named


class GuideIndex:
    """A guide index folder; make one with ``GuideIndex.open``."""

    def __init__(self, layout: Layout, manifest: Manifest) -> None:
        self.layout, self.manifest = layout, manifest
        self._vectors = RowStore(layout.root, manifest.parts["vectors"], (self.dim,), np.float16)
        self._scales = RowStore(layout.root, manifest.parts["scales"], (), np.float32)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool | None = None) -> GuideIndex:
        """Open a finished index.

        Sizes and the checksums of the small files are always compared.

        Args:
            path: The folder.
            verify: Whether to compare the checksums of the large files too, which reads the whole index; by default
                those that this machine has not compared since they were last written.

        Raises:
            IndexFaultError: The folder is no finished index, of another format version, or a file is damaged.
        """
        layout = Layout(Path(path))
        manifest = Manifest.load(layout)
        refuse_damaged(layout.root, list(manifest.records), verify=verify)
        return cls(layout, manifest)

    def __len__(self) -> int:
        """Number of pairs."""
        return self.manifest.rows["pairs"]

    def __repr__(self) -> str:
        return f"GuideIndex({str(self.layout.root)!r}, pairs={len(self)}, texts={len(self._vectors)}, dim={self.dim})"

    def __reduce__(self) -> tuple[Any, ...]:
        return GuideIndex.open, (str(self.layout.root),)

    @property
    def dim(self) -> int:
        """Dimensions of a guide vector."""
        return int(self.manifest.request.guide["dim"])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Guide vectors: text ids (n,) -> (n, dim) float16, unit length up to rounding."""
        return self._vectors.take(ids)

    def scales(self, ids: np.ndarray) -> np.ndarray:
        """Each text's guide score with its K-th nearest other text: (n,) -> (n,) float32."""
        return self._scales.take(ids)

    def pairs(self, pair_ids: np.ndarray, negatives: int | None = None) -> PairIds:
        """The text ids of pairs.

        Args:
            pair_ids: (B,) int64.
            negatives: K, the width of the negatives; default: the most that any pair of the index has.
        """
        pair_ids = np.asarray(pair_ids, dtype=np.int64)
        if pair_ids.size and not (pair_ids.min() >= 0 and pair_ids.max() < len(self)):
            raise IndexFaultError(
                f"Pair id {int(pair_ids.max())} is outside the index (0 to {len(self) - 1})",
                where=str(self.layout.root),
                fix="the `label` column must come from this index: use index.to_dataset()",
            )
        width = self.max_negatives if negatives is None else negatives
        ids = np.full((len(pair_ids), width), -1, dtype=np.int64)
        values, owner = self._negatives.rows(pair_ids)
        column = np.arange(len(owner)) - np.searchsorted(owner, owner, side="left")
        kept = column < width
        ids[owner[kept], column[kept]] = values[kept]
        return PairIds(self._anchors[pair_ids].astype(np.int64), self._positives[pair_ids].astype(np.int64), ids)

    @property
    def max_negatives(self) -> int:
        """The most negatives that a pair of the index has."""
        return int(np.diff(self._negatives.offsets).max(initial=0))

    def content_ids(self, ids: np.ndarray) -> np.ndarray:
        """The smallest text id with the same text, so that equal texts of both roles are told by id.

        Args:
            ids: Text ids of any shape; -1 for none stays -1.

        Returns:
            int64 of the same shape.
        """
        return np.where(ids < 0, -1, self._content_ids[np.maximum(ids, 0)].astype(np.int64))

    def known_positives(self, anchor_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every positive of each anchor anywhere in the index.

        Args:
            anchor_ids: (B,) text ids.

        Returns:
            Content ids of the positives, and for each the position in ``anchor_ids`` it belongs to; both (m,) int64.
        """
        values, owner = self._positives_of_anchor.rows(anchor_ids)
        return values.astype(np.int64), owner

    @cached_property
    def tasks(self) -> np.ndarray:
        """(pairs,) int32: number of each pair's task; pairs without a task share one number."""
        names = self._table("pairs", "task").combine_chunks().fill_null("").dictionary_encode()
        return _own(names.indices.to_numpy().astype(np.int32))

    def scores(self) -> Iterator[pa.Table]:
        """The score shards, part by part, see ``schema.SCORES``."""
        for record in self.manifest.parts["scores"]:
            yield read_table(self.layout.root, record, "scores")

    def to_dataset(self, negatives: int | None = None) -> Dataset:
        """The pairs as a ``datasets.Dataset`` with columns anchor, positive, negative_1 ..., label (the pair id).

        The rows are written once to the data sets cache and memory-mapped from there: resident memory does not grow
        with the index.

        Args:
            negatives: Negative columns; default: the most that any pair has. A pair with fewer repeats its positive
                there, which the loss leaves out.
        """
        from .dataset import pair_dataset

        return pair_dataset(self, self.max_negatives if negatives is None else negatives)

    @cached_property
    def _content_ids(self) -> np.ndarray:
        return self._column("texts", "content_id")

    @cached_property
    def _anchors(self) -> np.ndarray:
        return self._column("pairs", "anchor_id")

    @cached_property
    def _positives(self) -> np.ndarray:
        return self._column("pairs", "positive_id")

    @cached_property
    def _negatives(self) -> Ragged:
        column = self._table("pairs", "negative_ids")
        counts = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        lengths = np.concatenate(counts).astype(np.int64)
        return Ragged(offsets_of(lengths), self._text_ids(np.concatenate(values), "negative_ids"))

    @cached_property
    def _positives_of_anchor(self) -> Ragged:
        order = np.argsort(self._anchors, kind="stable")
        counts = np.bincount(self._anchors, minlength=len(self._vectors))
        return Ragged(offsets_of(counts), self._content_ids[self._positives[order]])

    def _column(self, kind: PartKind, name: str) -> np.ndarray:
        return self._text_ids(self._table(kind, name).to_numpy(), name)

    def _table(self, kind: PartKind, name: str) -> pa.ChunkedArray:
        root = self.layout.root
        return pa.concat_tables([read_table(root, record, kind, [name]) for record in self.manifest.parts[kind]])[name]

    def _text_ids(self, ids: np.ndarray, name: str) -> np.ndarray:
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self._vectors):
            raise IndexFaultError(
                f"Column {name} holds numbers that are no text ids (0 to {len(self._vectors) - 1})",
                where=str(self.layout.root),
                fix="run `gistcache verify`",
            )
        return _own(compact(ids))


def _own(copied: np.ndarray) -> np.ndarray:
    """The array, after Arrow has given back what it read the array from."""
    pa.default_memory_pool().release_unused()
    return copied
