"""Where an index is written: a folder, and the object storage that gets a copy of every file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ...shared.errors import IndexFaultError, SettingsError
from ...shared.guide_index.layout import Layout, RowForm, ShardKind
from ...shared.guide_index.memory_map import MappedRows
from ...shared.guide_index.tables import read_table
from ...shared.storage.files import cache_folder
from ...shared.storage.integrity import FileRecord, size_fault
from ...shared.storage.journal import commit, write_rows
from ...shared.storage.remote import Remote, is_url


@dataclass(frozen=True)
class Store:
    """The files of one index, by their records.

    With a remote, a file is committed once the remote has it too, and a file that another machine has written is
    fetched from there when it is needed. Without one, every machine that works on the index must see the same folder.
    """

    root: Path
    remote: Remote | None = None

    @classmethod
    def of(cls, out: str | Path) -> Store:
        """The store that ``--out`` names: a folder, or a URL, whose files are built in the user's cache."""
        if is_url(out):
            remote = Remote.of(out)
            return cls(cache_folder("building", remote.url) / "index", remote)
        root = Path(out).absolute()
        if file := next((path for path in (root, *root.parents) if path.is_file()), None):
            raise SettingsError(f"{file} is a file", where=f"--out {out}", fix="give a folder; it is made if need be")
        return cls(root)

    @property
    def layout(self) -> Layout:
        """The folder's paths."""
        return Layout(self.root)

    def __str__(self) -> str:
        return self.remote.url if self.remote else str(self.root)

    def name(self, path: Path) -> str:
        """A file's path as records have it: relative to the index, with slashes."""
        return path.relative_to(self.root).as_posix()

    def has(self, path: Path) -> bool:
        """Whether the index has this file or folder; of the remote, if there is one."""
        return self.remote.exists(self.name(path)) if self.remote else path.exists()

    def commit(self, path: Path, rows: int, write: Callable[[Path], object]) -> FileRecord:
        """Write one file whole through ``write(temporary path)``."""
        record = commit(self.root, path, rows, write)
        self.push(path)
        return record

    def commit_rows(self, path: Path, rows: pa.Table | np.ndarray) -> FileRecord:
        """Write a table, or an array whose first axis is rows."""
        return self.commit(path, len(rows), partial(write_rows, rows))

    def commit_shard(self, kind: ShardKind, number: int, rows: pa.Table | np.ndarray) -> FileRecord:
        """Write the rows of a shard."""
        return self.commit_rows(self.layout.shard(kind, number), rows)

    def push(self, path: Path) -> None:
        """Copy a file to the remote, if there is one."""
        if self.remote:
            self.remote.put(path, self.name(path))

    def fetch(self, record: FileRecord) -> Path:
        """The file of a record, fetched from the remote where this machine lacks it; IndexFaultError without one."""
        fault = size_fault(self.root, record)
        if fault and self.remote:
            self.remote.fetch(self.root, record)
        elif fault:
            raise IndexFaultError(
                f"A shard of the unfinished index cannot be found: {fault}",
                where=str(self.root),
                fix="every machine that takes part must see the folder under this path; or give --out s3://...",
            )
        return self.root / record.path

    def frame(self, record: FileRecord, kind: ShardKind, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The table of a shard, or some of its columns."""
        self.fetch(record)
        frame = pl.from_arrow(read_table(self.root, record, kind, columns))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def rows(self, records: list[FileRecord], form: RowForm | None = None) -> MappedRows:
        """The rows of array shards; a shard is fetched when one of its rows is read."""
        return MappedRows(self.fetch, records, form)

    def drop(self, folder: Path) -> None:
        """Delete a folder of the index, here and on the remote."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.remote:
            self.remote.remove(self.name(folder))
