"""The shards of an index under construction: those that an earlier run has committed, and those still to compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...shared.guide_index.layout import ShardKind
from ...shared.guide_index.memory_map import MappedRows
from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord
from ...shared.storage.journal import Journal
from ..run.jobs import Engine, Job, ShardResult, Value
from .store import Store


class Shards:
    """Commits shards to a store, records them in the journal and lists them by kind; the engine computes jobs.

    Attributes:
        records: Of each kind the records of its shards, in order.
        files: The records of files that are no shards.
    """

    def __init__(self, store: Store, journal: Journal, engine: Engine) -> None:
        self.store, self._journal, self._engine = store, journal, engine
        self.records: dict[ShardKind, list[FileRecord]] = {}
        self.files: list[FileRecord] = []

    def committed(self, path: Path) -> FileRecord | None:
        """The record of a file, if it is committed."""
        return self._journal.done.get(self.store.name(path))

    def existing(self, kind: ShardKind, number: int) -> FileRecord | None:
        """The record of a shard, if it is committed."""
        return self.committed(self.store.layout.shard(kind, number))

    def rows(self, kind: ShardKind) -> MappedRows:
        """The rows of a kind of arrays."""
        return self.store.rows(self.records[kind])

    def ranges(self, kind: ShardKind) -> list[tuple[int, int]]:
        """First and last-plus-one row (a text id, a pair id) of each shard of a kind."""
        return list(pairwise(accumulate((record.rows for record in self.records[kind]), initial=0)))

    def write(self, kind: ShardKind, contents: Iterable[pa.Table | np.ndarray]) -> None:
        """Commit shards whose content is at hand."""
        shard = partial(self.store.layout.shard, kind)
        self.records[kind] = [self._keep_or_write(shard(number), rows) for number, rows in enumerate(contents)]

    def write_file(self, path: Path, table: pa.Table) -> None:
        """Commit a table that is one file."""
        self.files.append(self._keep_or_write(path, table))

    def _keep_or_write(self, path: Path, rows: pa.Table | np.ndarray) -> FileRecord:
        return self._journal.keep_or_make(path, partial(self.store.commit_rows, path, rows))

    def fill(
        self, kind: ShardKind, job: Job[Value], numbers: Sequence[int], advance: Advance, engine: Engine | None = None
    ) -> list[ShardResult]:
        """Compute the shards that are missing and list all of ``numbers``; returns the results of the new ones."""
        missing = [number for number in numbers if not self.existing(kind, number)]
        results = list(self.run(job, missing, advance, engine))
        self.collect(kind, numbers)
        return results

    def run(
        self, job: Job[Value], numbers: Sequence[int], advance: Advance, engine: Engine | None = None
    ) -> Iterator[ShardResult]:
        """Compute ``numbers`` of a job, by an engine of its own if need be; record each file as it is committed."""
        for result in (engine or self._engine).run(job, numbers, advance):
            if result.record and result.record.path not in self._journal.done:
                self._journal.record(result.record)
            yield result

    def collect(self, kind: ShardKind, numbers: Iterable[int]) -> None:
        """List shards that are all committed."""
        records = [record for number in numbers if (record := self.existing(kind, number))]
        self.records[kind] = [*self.records.get(kind, []), *records]
