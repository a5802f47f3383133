"""A finished guide index, opened for reading: vectors, pairs, scores, texts, known positives.

Opening maps the vectors and reads nothing of them; many processes may share one folder, also a read-only one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import IndexFaultError
from ..storage.checksummed_json import parse_object
from ..storage.integrity import refuse_damaged
from ..storage.remote import local_copy
from ..types import VectorDType
from .layout import CONTENT, Layout
from .manifest import Manifest
from .memory_map import MappedRows, MappedVectors
from .ragged import runs
from .tables import read_table

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
        forms = manifest.row_forms
        self._rows = {kind: MappedRows(layout.file, manifest.shards[kind], *form) for kind, form in forms.items()}
        self.stored_vectors = self._rows["vectors"]
        self._vectors = MappedVectors(self.stored_vectors)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool | None = None) -> GuideIndex:
        """Open a finished index.

        Sizes and the checksums of the small files are always compared.

        Args:
            path: The folder, or a URL, of which a local copy is made once.
            verify: Whether to compare the checksums of the large files too, which reads the whole index; by default
                those that this machine has not compared since they were last written.

        Raises:
            IndexFaultError: The folder is no finished index, of another format version, or a file is damaged.
            StorageError: The URL cannot be read.
        """
        layout = Layout(local_copy(path))
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

    @property
    def vector_dtype(self) -> VectorDType:
        """Number type that guide vectors are stored in."""
        return self.manifest.request.settings["vector_dtype"]

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Guide vectors of unit length up to rounding: text ids (n,) -> (n, dim) float16, float32 from stored int8."""
        return self._vectors.take(ids)

    def density(self, ids: np.ndarray) -> np.ndarray:
        """Each text's guide score with its K-th nearest other text: (n,) -> (n,) float32."""
        return self._rows["density"].take(ids)

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
        rows = self._rows["lookup"].take(pair_ids)
        counts = np.minimum(rows["negative_count"], width).astype(np.int64)
        places, owner = runs(rows["negatives"], counts, len(self._rows["negatives"]))
        ids = np.full((len(pair_ids), width), -1, dtype=np.int64)
        ids[owner, places - rows["negatives"][owner]] = self._rows["negatives"].take(places)
        return PairIds(rows["anchor"].copy(), rows["positive"].copy(), ids)

    @property
    def max_negatives(self) -> int:
        """The most negatives that a pair of the index has."""
        return int(self.manifest.request.corpus["max_negatives"])

    def content_ids(self, ids: np.ndarray) -> np.ndarray:
        """The smallest text id with the same text, so that equal texts of both roles are told by id.

        Args:
            ids: Text ids of any shape; -1 for none stays -1.

        Returns:
            int64 of the same shape.
        """
        found = self._rows["contents"].take(np.maximum(ids, 0).ravel())[:, CONTENT].reshape(np.shape(ids))
        return np.where(ids < 0, -1, found)

    def known_positives(self, pair_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every positive, anywhere in the index, of each pair's anchor.

        Args:
            pair_ids: (B,) int64.

        Returns:
            Content ids of the positives, and for each the position in ``pair_ids`` it belongs to; both (m,) int64.
        """
        rows = self._rows["lookup"].take(pair_ids)
        pairs, owner = runs(rows["group"], rows["group_size"], len(self))
        return self.content_ids(self._rows["lookup"].take(pairs)["positive"]), owner

    def tasks(self, pair_ids: np.ndarray) -> np.ndarray:
        """(B,) int32: number of each pair's task; -1 where it has none."""
        return self._rows["lookup"].take(pair_ids)["task"].copy()

    def scores(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The score shards, part by part in the order of pair ids, see ``schema.SCORES``.

        Args:
            columns: Which to read; default: all.
        """
        for record in self.manifest.shards["scores"]:
            yield read_table(self.layout.root, record, "scores", columns)

    def summary(self) -> dict[str, Any] | None:
        """What building this very index took (``<index>.summary.json``); None where that is no longer there."""
        try:
            held = parse_object(self.layout.summary, "summary")
        except (OSError, IndexFaultError):
            return None
        return held if held.get("manifest") == self.manifest.key else None

    def to_dataset(self, negatives: int | None = None) -> Dataset:
        """The pairs as a ``datasets.Dataset`` with columns anchor, positive, negative_1 ..., label (the pair id).

        The rows are written once to the data sets cache and memory-mapped from there: resident memory does not grow
        with the index.

        Args:
            negatives: Negative columns; default: the most that any pair has. A pair with fewer repeats its positive
                there, which the loss leaves out.
        """
        from .hf_dataset import pair_dataset

        return pair_dataset(self, self.max_negatives if negatives is None else negatives)
