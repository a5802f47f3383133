"""The Parquet shards of an index, read back and compared with their schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import IndexFaultError
from ..storage.integrity import FileRecord
from .layout import SCHEMAS, ShardKind


def read_table(root: Path, record: FileRecord, kind: ShardKind, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a shard, or some columns of its schema; columns that the schema does not know are ignored.

    Raises:
        IndexFaultError: It cannot be read, lacks a column of the schema, has one of another type, or has another number
            of rows than recorded.
    """
    schema = SCHEMAS[kind]
    try:
        with pq.ParquetFile(root / record.path) as file:
            stored, rows = file.schema_arrow, file.metadata.num_rows
            if any(stored.names.count(each.name) != 1 or stored.field(each.name) != each for each in schema):
                raise ValueError("columns differ from those of the format")
            if rows != record.rows:
                raise ValueError(f"{rows} rows, {record.rows} recorded")
            return file.read(columns=schema.names if columns is None else list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IndexFaultError(
            f"A shard of the index cannot be used: {error}", where=record.path, fix="run `gistcache verify`"
        ) from error
