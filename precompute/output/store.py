"""Where an index is being written: a folder, and the object storage that gets a copy of every part."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from ...shared.errors import IndexFaultError, SettingsError
from ...shared.guide_index.layout import Layout, ShardKind
from ...shared.guide_index.memory_map import MappedRows
from ...shared.guide_index.tables import read_table
from ...shared.storage.files import cache_folder
from ...shared.storage.integrity import FileRecord, size_fault
from ...shared.storage.journal import commit, commit_array, commit_table
from ...shared.storage.remote import Remote, is_url

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Store:
    """Files of one index, by their records.

    With a remote, a part is committed when it lies there too, and a part that another machine has made is fetched from
    there when it is asked for. Without one, every machine that works on the index sees the same folder.
    """

    root: Path
    remote: Remote | None = None

    @classmethod
    def of(cls, out: str | Path) -> Store:
        """The place that ``--out`` names: a folder, or a URL, whose parts are kept in the user's cache meanwhile.

        Raises:
            SettingsError: It is a file, or is inside of one.
        """
        if not is_url(out):
            root = Path(out).absolute()
            if file := next((path for path in (root, *root.parents) if path.is_file()), None):
                raise SettingsError(
                    f"{file} is a file", where=f"--out {out}", fix="give a folder; it is made if need be"
                )
            return cls(root)
        remote = Remote.of(out)
        return cls(cache_folder("building", remote.url) / "index", remote)

    @property
    def layout(self) -> Layout:
        """The folder's files."""
        return Layout(self.root)

    def __str__(self) -> str:
        return self.remote.url if self.remote else str(self.root)

    def commit(self, path: Path, rows: int, write: Callable[[Path], None]) -> FileRecord:
        """Write one file through ``write(temporary path)``; see ``parts.commit``."""
        return self._pushed(commit(self.root, path, rows, write))

    def commit_table(self, path: Path, table: pa.Table) -> FileRecord:
        """Write an Arrow table as one Parquet file."""
        return self._pushed(commit_table(self.root, path, table))

    def commit_shard(self, kind: ShardKind, number: int, content: pa.Table | np.ndarray) -> FileRecord:
        """Write a part of the index: an Arrow table, or a NumPy array, first axis rows."""
        path = self.layout.shard(kind, number)
        if isinstance(content, pa.Table):
            return self.commit_table(path, content)
        return self._pushed(commit_array(self.root, path, content))

    def _pushed(self, record: FileRecord) -> FileRecord:
        if self.remote:
            self.remote.put(self.root / record.path, record.path)
        return record

    def push(self, path: Path) -> None:
        """Copy a file that is no part to the remote, whole."""
        if self.remote:
            self.remote.put(path, path.relative_to(self.root).as_posix())

    def fetched(self, record: FileRecord) -> Path:
        """The file of a record, fetched if it is not here.

        Raises:
            IndexFaultError: It is nowhere, or not the one recorded.
        """
        if size_fault(self.root, record) and self.remote:
            self.remote.fetch(self.root, record)
        if fault := size_fault(self.root, record):
            raise IndexFaultError(
                f"A part of the unfinished index cannot be found: {fault}",
                where=str(self.root),
                fix="every machine that takes part must see the folder under this path; or give --out s3://...",
            )
        return self.root / record.path

    def frame(self, record: FileRecord, kind: ShardKind, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The table of a part, or some of its columns, fetched if it is not here."""
        import polars as pl  # `--help` of rescore, which writes at a place too, needs none

        self.fetched(record)
        frame = pl.from_arrow(read_table(self.root, record, kind, columns))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def rows(
        self, records: list[FileRecord], shape: tuple[int, ...] | None = None, dtype: DTypeLike | None = None
    ) -> MappedRows:
        """The rows of parts, each fetched when rows of it are asked for."""
        return MappedRows(self.fetched, records, shape, dtype)

    def drop(self, folder: Path) -> None:
        """Delete a folder of the index, here and there."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.remote:
            self.remote.remove(folder.relative_to(self.root).as_posix())
