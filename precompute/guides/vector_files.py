"""Vectors that exist already, as files have them: which text each row belongs to, and the rows, mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from ...shared.data.inputs import find_sources, unreadable
from ...shared.data.readers import Fields, read_rows
from ...shared.errors import InputError
from ...shared.storage.files import atomic_write
from ..text_hash import hash_text

TEXT, ROLE, EMBEDDING = "text", "role", "embedding"
ARRAY, TEXTS = "vectors.npy", ("texts.parquet", "texts.jsonl")
CHUNK_ROWS, BATCH_ROWS = 65_536, 4_096
FORMS = (
    f"give a folder with {ARRAY} and {' or '.join(TEXTS)} (column text; and role, where a text has a vector for each), "
    "or Parquet with columns text, embedding, and role"
)


@dataclass(frozen=True)
class GivenVectors:
    """The files of a locator.

    Attributes:
        array: The ``.npy`` with one row a text; None where the vectors stand in the Parquet files of the texts.
        texts: The files of texts, in order.
    """

    array: Path | None
    texts: list[Path]

    @classmethod
    def find(cls, locator: str) -> GivenVectors:
        """The files that a path means.

        Raises:
            InputError: There are none.
        """
        path = Path(locator)
        array = path / ARRAY if path.is_dir() else path
        if array.suffix == ".npy" and array.is_file():
            beside = [array.parent / name for name in TEXTS if (array.parent / name).is_file()]
            if len(beside) != 1:
                raise InputError(f"{len(beside)} files of texts stand beside the vectors", where=str(array), fix=FORMS)
            return cls(array, beside)
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files or not all(file.is_file() and file.suffix == ".parquet" for file in files):
            raise InputError("There are no vectors here", where=locator, fix=FORMS)
        return cls(None, files)

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [self.array, *self.texts] if self.array else self.texts

    def read_texts(self) -> pl.DataFrame:
        """text_hash of every row in order, and role where the files have that column.

        Raises:
            InputError: A row has no text, or no role where others have one.
        """
        rows, chunks = self._rows(), []
        while chunk := list(islice(rows, CHUNK_ROWS)):
            chunks.append(pl.DataFrame(chunk, schema={ROLE: pl.String, "text_hash": pl.Binary}, orient="row"))
        if not chunks:
            raise InputError("The files hold no text", where=str(self.texts[0]), fix=FORMS)
        texts = pl.concat(chunks)
        without = texts[ROLE].null_count()
        if 0 < without < texts.height:
            raise InputError(f"{without:,} rows of {texts.height:,} have no role", where=str(self.texts[0]), fix=FORMS)
        return texts.drop(ROLE) if without else texts

    def _rows(self) -> Iterator[tuple[str | None, bytes]]:
        for source in find_sources(str(path) for path in self.texts):
            for line, row in read_rows(source, {TEXT, ROLE}.__contains__):
                try:
                    yield _keyed(row)
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(
                        f"A row has no usable text and role: {error!r}", where=f"{source.name}, line {line}", fix=FORMS
                    ) from None

    def mapped(self, scratch: Path, name: str) -> np.ndarray:
        """The vectors, (rows, D), mapped from disk.

        Args:
            scratch: Where Parquet is laid out as an array once; the folder goes when the index is finished.
            name: Names the content, so that no other is taken for it.
        """
        if self.array:
            return _map(self.array)
        path = scratch / f"given-{name}.npy"
        scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _lay_out(self.texts, path)
        return _map(path)

    def dim(self) -> int:
        """How many dimensions the vectors have."""
        if self.array:
            return _map(self.array).shape[1]
        for batch in _batches(self.texts):
            return len(batch[0])
        return 0


def _keyed(row: Fields | str) -> tuple[str | None, bytes]:
    """Role and text hash of a row; ValueError, TypeError or KeyError where it has none."""
    if isinstance(row, str):
        raise ValueError(row)
    if row.get(ROLE) not in (None, "query", "document"):
        raise ValueError(f"role {row[ROLE]!r}")
    if not isinstance(text := row[TEXT], str):
        raise TypeError(f"text {text!r}")
    return row.get(ROLE), hash_text(text)


def _map(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(str(path), error) from error
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        raise InputError(
            f"The array is {array.dtype} of shape {array.shape}", where=str(path), fix="give rows of floats"
        )
    return array


def _lay_out(files: Sequence[Path], to: Path) -> None:
    """Write the embeddings of Parquet files as one array of float32."""
    count = sum(pq.read_metadata(file).num_rows for file in files)
    dim, start = 0, 0
    with atomic_write(to) as partial:
        out = None
        for file, batch in ((each, batch) for each in files for batch in _batches([each])):
            if out is None:
                out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(count, batch.shape[1]))
                dim = batch.shape[1]
            if batch.shape[1] != dim:
                raise InputError(
                    f"Embeddings have {batch.shape[1]} dimensions, those before have {dim}",
                    where=str(file),
                    fix="give files of one model alone",
                )
            out[start : start + len(batch)] = batch
            start += len(batch)
        assert out is not None
        out.flush()


def _batches(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The embeddings, (rows, D), batch by batch."""
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                if EMBEDDING not in file.schema_arrow.names:
                    raise InputError(f"There is no column {EMBEDDING}", where=str(path), fix=FORMS)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[EMBEDDING]):
                    yield _dense(batch.column(EMBEDDING), path)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(str(path), error) from error


def _dense(column: pa.Array, path: Path) -> np.ndarray:
    lengths = set(pc.call_function("list_value_length", [column]).to_pylist())
    values = column.flatten()
    if len(lengths) != 1 or lengths & {None, 0} or values.null_count or not pa.types.is_floating(values.type):
        raise InputError(
            f"The column {EMBEDDING} is {column.type}, with rows of lengths {sorted(map(str, lengths))[:5]}",
            where=str(path),
            fix="give lists of floats, all of one length",
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
