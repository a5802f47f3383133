"""Every fault of an index: files that differ from their records, vectors that are none, ids outside their range."""

from __future__ import annotations

from collections.abc import Iterator

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
    shards = [(kind, record) for kind, records in manifest.shards.items() for record in records]
    with step("verify", sum(record.bytes for record in manifest.records), "bytes") as advance:
        for kind, record in [*shards, *((None, record) for record in manifest.files)]:
            if fault := content_fault(layout.root, record):
                yield fault
            else:
                try:
                    faults = _shard_faults(layout, manifest, kind, record) if kind else ()
                    yield from (f"{record.path}: {fault}" for fault in faults)
                except IndexFaultError as error:
                    yield f"{record.path}: {error.what}"
            advance(record.bytes)


def _shard_faults(layout: Layout, manifest: Manifest, kind: ShardKind, record: FileRecord) -> Iterator[str]:
    ids, texts = {}, manifest.rows["texts"]
    if kind in SCHEMAS:
        table = read_table(layout.root, record, kind)
        ids = {f"values of {name}": _flat(table[name]) for name in TEXT_ID_COLUMNS if name in table.column_names}
    elif form := manifest.row_forms.get(kind):
        rows = MappedRows(layout.file, [record], form).shard(0)
        if kind == "lookup":
            ids = {"values": np.concatenate([rows["anchor"], rows["positive"]])}
        elif kind in ("contents", "negatives"):
            ids = {"values": rows}
        else:
            yield from _float_faults(kind, dequantize(rows))
    for what, values in ids.items():
        if outside := int(((values < (-1 if kind == "contents" else 0)) | (values >= texts)).sum()):
            yield f"{outside} {what} are no text id (0 to {texts - 1})"


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    values = column.combine_chunks()
    return (values.flatten() if pa.types.is_list(values.type) else values).to_numpy()


def _float_faults(kind: ShardKind, values: np.ndarray) -> Iterator[str]:
    if not np.isfinite(values).all():
        yield "values that are not finite"
    elif kind == "vectors":
        off = np.abs(np.linalg.norm(values.astype(np.float32), axis=1) - 1) > NORM_TOLERANCE
        if off.any():
            yield f"{int(off.sum())} vectors of another length than one, first row {int(off.argmax())}"
