"""Every fault of an index: files that differ from their records, vectors that are none, ids outside their range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import IndexFaultError
from ..progress import step
from ..storage.integrity import FileRecord, content_fault
from .layout import SCHEMAS, Layout, ShardKind
from .manifest import Manifest
from .memory_map import MappedRows
from .quantize import dequantize
from .tables import read_table

NORM_TOLERANCE = 5e-3  # how far from one the length of a unit vector rounded to float16 may be
TEXT_ID_COLUMNS = ("text_id", "anchor_id", "positive_id", "negative_ids", "neighbor_ids")


def find_faults(layout: Layout, manifest: Manifest) -> Iterator[str]:
    """Yield one line for every fault, starting with the file it is in; of unknown kinds only the checksum counts."""
    texts, forms = manifest.rows["texts"], manifest.row_forms
    shards = [(kind, record) for kind, records in manifest.shards.items() for record in records]
    with step("verify", sum(record.bytes for record in manifest.records), "bytes") as advance:
        for kind, record in [*shards, *((None, record) for record in manifest.files)]:
            if fault := content_fault(layout.root, record):
                yield fault
            else:
                try:
                    if kind in SCHEMAS:
                        yield from _table_faults(layout.root, kind, record, texts)
                    elif kind in forms:
                        rows = MappedRows(layout.file, [record], *forms[kind])
                        yield from _array_faults(kind, record, rows.shard(0), texts)
                except IndexFaultError as error:
                    yield f"{record.path}: {error.what}"
            advance(record.bytes)


def _table_faults(root: Path, kind: ShardKind, record: FileRecord, texts: int) -> Iterator[str]:
    table = read_table(root, record, kind)
    for name in TEXT_ID_COLUMNS:
        if name in table.column_names:
            yield from _id_faults(record, _values(table[name]), f"values of {name}", 0, texts)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    flat = column.combine_chunks()
    return (flat.flatten() if pa.types.is_list(flat.type) else flat).to_numpy(zero_copy_only=False)


def _array_faults(kind: ShardKind, record: FileRecord, array: np.ndarray, texts: int) -> Iterator[str]:
    if kind == "lookup":
        yield from _id_faults(record, np.concatenate([array["anchor"], array["positive"]]), "values", 0, texts)
    elif kind in ("contents", "negatives"):
        yield from _id_faults(record, array, "values", -1 if kind == "contents" else 0, texts)
    elif not np.isfinite(values := dequantize(array)).all():
        yield f"{record.path}: values that are not finite"
    elif kind == "vectors":
        off = np.abs(np.linalg.norm(values.astype(np.float32), axis=1) - 1) > NORM_TOLERANCE
        if off.any():
            yield f"{record.path}: {int(off.sum())} vectors of another length than one, first row {int(off.argmax())}"


def _id_faults(record: FileRecord, ids: np.ndarray, what: str, least: int, texts: int) -> Iterator[str]:
    if outside := int(((ids < least) | (ids >= texts)).sum()):
        yield f"{record.path}: {outside} {what} are no text id (0 to {texts - 1})"
