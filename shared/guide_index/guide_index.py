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
from ..storage.files import atomic_write
from ..storage.integrity import FileRecord, parse_object, refuse_damaged
from .layout import CONTENT, ShardKind
from .manifest import Manifest
from .memory_map import MappedRows, MappedVectors
from .ragged import runs
from .remote_copy import LocalCopy
from .tables import read_table
from .texts import Texts

if TYPE_CHECKING:
    from datasets import Dataset

# Most trainers read none of these, so they are fetched from a URL when they are first asked for.
FETCHED_LATER: frozenset[ShardKind] = frozenset({"faiss", "scores"})
BATCH_ROWS = 131_072  # many: opening a data set's file touches each batch, and maps pages around it


class PairIds(NamedTuple):
    """The text ids of B pairs: anchors and positives (B,), negatives (B, K), -1 where a pair has fewer; all int64."""

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Text ids (B,) of each data-set column: anchor, positive, negative_1 ...

        A pair with fewer negatives repeats its positive in their place; the loss masks these candidates.
        """
        filled = np.where(self.negatives < 0, self.positives[:, None], self.negatives)
        negatives = {f"negative_{k + 1}": column for k, column in enumerate(filled.T)}
        return {"anchor": self.anchors, "positive": self.positives} | negatives


class GuideIndex:
    """A guide index folder; ``GuideIndex.open`` opens one.

    Attributes:
        layout: The folder, or the local copy of a URL.
        manifest: What it was made of, its files, and what was measured.
    """

    def __init__(self, copy: LocalCopy, manifest: Manifest) -> None:
        self._copy, self.layout, self.manifest = copy, copy.layout, manifest
        self._rows = {
            kind: MappedRows(self.layout.file, manifest.shards[kind], form) for kind, form in manifest.row_forms.items()
        }
        self._vectors = MappedVectors(self._rows["vectors"])

    @classmethod
    def open(cls, path: str | Path, *, verify: bool | None = None) -> GuideIndex:
        """Open a finished index.

        Sizes and the checksums of the small files are always compared.

        Args:
            path: The folder, or a URL, whose files are copied to this machine once: scores and FAISS files when first
                asked for, all others now.
            verify: Whether to compare the checksums of the large files too, which reads the whole index; by default
                those that this machine has not compared since they were last written.

        Raises:
            IndexFaultError: The folder is no finished index, of another format version, or a file is damaged.
            StorageError: The URL cannot be read.
        """
        return cls._of(LocalCopy.of(path), verify=verify)

    @classmethod
    def _of(cls, copy: LocalCopy, *, verify: bool | None = None) -> GuideIndex:
        manifest = Manifest.load(copy.layout)
        records = manifest.records_without(FETCHED_LATER if copy.remote else ())
        copy.fetch(records)
        refuse_damaged(copy.layout.root, records, verify=verify)
        return cls(copy, manifest)

    def __len__(self) -> int:
        """Number of pairs."""
        return self.manifest.rows["pairs"]

    def __repr__(self) -> str:
        return f"GuideIndex({str(self.layout.root)!r}, pairs={len(self)}, texts={len(self._vectors)}, dim={self.dim})"

    def __reduce__(self) -> tuple[Any, ...]:
        return GuideIndex._of, (self._copy,)

    @property
    def dim(self) -> int:
        """Dimensions of a guide vector."""
        return int(self.manifest.request.guide["dim"])

    @property
    def max_negatives(self) -> int:
        """The most negatives that a pair of the index has."""
        return int(self.manifest.request.corpus["max_negatives"])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Guide vectors of unit length up to rounding: text ids (n,) -> (n, dim) float16, float32 from stored int8."""
        return self._vectors.take(ids)

    def density(self, ids: np.ndarray) -> np.ndarray:
        """Local density, each text's guide score with its K-th nearest other text: text ids (n,) -> (n,) float32.

        ``manifest.measured["density"]`` has K and how many texts it was measured against.
        """
        return self._rows["density"].take(ids)

    def pairs(self, pair_ids: np.ndarray, negatives: int | None = None) -> PairIds:
        """The text ids of pairs.

        Args:
            pair_ids: (B,) int64.
            negatives: K, the width of the negatives; default: the most that any pair of the index has.

        Raises:
            IndexFaultError: A pair id is outside the index.
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

    def content_ids(self, ids: np.ndarray) -> np.ndarray:
        """The smallest text id with the same text, in either role: text ids of any shape -> int64 of that shape.

        -1 for none stays -1.
        """
        contents = self._rows["contents"].take(np.maximum(ids, 0).ravel())[:, CONTENT].reshape(np.shape(ids))
        return np.where(ids < 0, -1, contents)

    def known_positives(self, pair_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every positive, anywhere in the index, of the anchors of pairs (B,).

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
        """Yield the score shards in the order of pair ids, or some columns of ``layout.SCORES``."""
        for record in self._fetched("scores"):
            yield read_table(self.layout.root, record, "scores", columns)

    def faiss_files(self) -> list[Path]:
        """The FAISS files, one a document shard; their ids are text ids."""
        return [self.layout.file(record) for record in self._fetched("faiss")]

    def _fetched(self, kind: ShardKind) -> list[FileRecord]:
        records = self.manifest.shards[kind]
        if self._copy.remote:  # the files of a local folder were compared when it was opened
            self._copy.fetch(records)
            refuse_damaged(self.layout.root, records)
        return records

    def summary(self) -> dict[str, Any] | None:
        """What building this very index took (``<index>.summary.json``); None where that file is missing or older."""
        self._copy.fetch_summary()
        try:
            summary = parse_object(self.layout.summary, "summary")
        except (OSError, IndexFaultError):
            return None
        return summary if summary.get("manifest") == self.manifest.key else None

    def to_dataset(self, negatives: int | None = None) -> Dataset:
        """The pairs as a ``datasets.Dataset``: anchor, positive, negative_1 ... (large strings), label (the pair id).

        The rows are written once to the data sets cache and memory-mapped from there: resident memory does not grow
        with the index.

        Args:
            negatives: Negative columns; default: the most that any pair has. A pair with fewer repeats its positive
                there, which the loss masks.
        """
        from datasets import Dataset, config

        width = self.max_negatives if negatives is None else negatives
        path = Path(config.HF_DATASETS_CACHE) / "gistcache" / f"{self.manifest.key}-{width}.arrow"
        if not path.is_file():
            texts, labels = Texts(self), np.arange(len(self))
            first = self._table(texts, labels[:BATCH_ROWS], width)
            with (
                atomic_write(path, locked=False) as partial,
                pa.OSFile(str(partial), "wb") as file,
                pa.ipc.new_stream(file, first.schema) as writer,
            ):
                writer.write_table(first)
                for start in range(BATCH_ROWS, len(self), BATCH_ROWS):
                    writer.write_table(self._table(texts, labels[start : start + BATCH_ROWS], width))
        return Dataset.from_file(str(path))

    def dataset_of(self, pair_ids: np.ndarray, negatives: int) -> Dataset:
        """Some pairs (n,) alone, with the columns of ``to_dataset``, in memory."""
        from datasets import Dataset

        return Dataset(self._table(Texts(self), pair_ids, negatives))

    def _table(self, texts: Texts, labels: np.ndarray, negatives: int) -> pa.Table:
        ids = self.pairs(labels, negatives).columns()
        joined = texts.take(np.concatenate(list(ids.values())))
        columns = {name: joined.slice(k * len(labels), len(labels)) for k, name in enumerate(ids)}
        return pa.table(columns | {"label": pa.array(labels, pa.int64())})
