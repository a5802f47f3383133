"""The Parquet parts of an index, read back and held to their schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import IndexFaultError
from ..storage.files import FileRecord
from .layout import SCHEMAS, ShardKind


def read_table(root: Path, record: FileRecord, kind: ShardKind, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns.

    Args:
        root: The index folder.
        record: The part.
        kind: Which schema it has.
        columns: Names; None reads all.

    Raises:
        IndexFaultError: It cannot be read, or has other columns or another number of rows than it should.
    """
    try:
        with pq.ParquetFile(root / record.path) as file:
            if not file.schema_arrow.equals(SCHEMAS[kind]):
                raise _fault(record, "columns differ from those of the format")
            if file.metadata.num_rows != record.rows:
                raise _fault(record, f"{file.metadata.num_rows} rows, {record.rows} recorded")
            return file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _fault(record, f"not readable: {error}") from error


def _fault(record: FileRecord, fault: str) -> IndexFaultError:
    return IndexFaultError(
        f"A part of the index cannot be used: {fault}", where=record.path, fix="run `gistcache verify`"
    )
