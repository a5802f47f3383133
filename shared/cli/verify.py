"""`gistcache verify`: every part of an index against its manifest; finds all faults, mends none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.text import Text

from ..errors import IndexFaultError
from ..guide_index.layout import SCHEMAS, Layout, ShardKind
from ..guide_index.manifest import Manifest
from ..guide_index.memory_map import MappedRows
from ..guide_index.quantize import dequantize
from ..guide_index.tables import read_table
from ..progress import step
from ..storage.files import FileRecord, content_fault
from ..storage.remote import local_copy
from .output import CommandResult

# A unit vector rounded to float16 is this close to length one.
NORM_TOLERANCE = 5e-3


def verify(index: str) -> CommandResult:
    """Check every part of an index: present, rows, bytes, checksum, finite unit vectors, ids in range.

    Rebuilds nothing. Exits with 5 and names each fault if there is one; else tells how many of the guide's decisions
    the rounding of its vectors changes, on a sample of the pairs.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    layout = Layout(local_copy(index))
    manifest = Manifest.load(layout)
    faults = list(find_faults(layout, manifest))
    count = sum(1 for _ in manifest.records)
    rounding = manifest.measured.get("rounding")
    return CommandResult(
        {"index": index, "files": count, "faults": faults, "rounding": rounding},
        (
            *(Text(f"fault: {fault}") for fault in faults),
            Text(f"{index}: {count} files checked, {len(faults) or 'no'} fault{'s' * (len(faults) > 1)}"),
            *([Text(_rounding_line(rounding))] if rounding and not faults else []),
        ),
        IndexFaultError.exit_code if faults else 0,
    )


def _rounding_line(rounding: dict[str, int]) -> str:
    share = 100 * rounding["changed"] / max(1, rounding["candidates"])
    counts = f"{rounding['candidates']:,} candidates of {rounding['pairs']:,} pairs"
    return f"mask decisions that rounding the vectors changes: {share:.4f} % ({counts})"


def find_faults(layout: Layout, manifest: Manifest) -> Iterator[str]:
    """Every fault of an index, one line each, starting with the file it is in."""
    rows, forms = manifest.rows, manifest.row_forms
    of_kinds = [(kind, record) for kind, records in manifest.shards.items() for record in records]
    with step("verify", sum(record.bytes for record in manifest.records), "bytes") as advance:
        for kind, record in [*of_kinds, *((None, record) for record in manifest.files)]:
            fault = content_fault(layout.root, record)
            if fault:
                yield fault
            elif kind in SCHEMAS:
                yield from _parquet_faults(layout.root, kind, record, rows["texts"])
            elif kind in forms:
                yield from _array_faults(kind, record, MappedRows(layout.file, [record], *forms[kind]), rows)
            advance(record.bytes)


def _parquet_faults(root: Path, kind: ShardKind, record: FileRecord, texts: int) -> Iterator[str]:
    try:
        table = read_table(root, record, kind)
    except IndexFaultError as error:
        yield f"{record.path}: {error.what}"
        return
    for name in ("text_id", "anchor_id", "positive_id", "negative_ids", "neighbor_ids"):
        if name in table.column_names and (outside := _outside(table[name], texts)):
            yield f"{record.path}: {outside} values of {name} are no text id (0 to {texts - 1})"


def _outside(column: pa.ChunkedArray, texts: int) -> int:
    values = [chunk.flatten() if pa.types.is_list(chunk.type) else chunk for chunk in column.chunks]
    ids = np.concatenate([value.to_numpy(zero_copy_only=False) for value in values] or [np.empty(0)])
    return int(((ids < 0) | (ids >= texts)).sum())


def _array_faults(kind: ShardKind, record: FileRecord, held: MappedRows, rows: dict[str, int]) -> Iterator[str]:
    try:
        array = held.part(0)
    except IndexFaultError as error:
        yield f"{record.path}: {error.what}"
        return
    if kind in ("vectors", "density"):
        yield from _value_faults(record, dequantize(array).astype(np.float32))
        return
    ids, least, what = [array], 0, "text"
    if kind == "lookup":
        ids = [array["anchor"], array["positive"]]
    elif kind == "contents":
        least = -1
    outside = sum(int(((values < least) | (values >= rows[f"{what}s"])).sum()) for values in ids)
    if outside:
        yield f"{record.path}: {outside} values are no {what} id (0 to {rows[f'{what}s'] - 1})"


def _value_faults(record: FileRecord, values: np.ndarray) -> Iterator[str]:
    if not np.isfinite(values).all():
        yield f"{record.path}: values that are not finite"
    elif values.ndim > 1:
        off = np.abs(np.linalg.norm(values, axis=1) - 1) > NORM_TOLERANCE
        if off.any():
            yield f"{record.path}: {int(off.sum())} vectors of another length than one, first row {int(off.argmax())}"
