"""Files of vectors that exist already: the text that each row belongs to, and the rows, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
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
from ...shared.data.readers import read_rows
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
class VectorFiles:
    """The files of a locator.

    Attributes:
        array: The ``.npy`` with one row a text; None where the vectors are a column of the texts' Parquet files.
        texts: The files of texts, in order.
    """

    array: Path | None
    texts: list[Path]

    @classmethod
    def find(cls, locator: str) -> VectorFiles:
        """The files that a path means.

        Raises:
            InputError: There are none.
        """
        path = Path(locator)
        array = path / ARRAY if path.is_dir() else path
        if array.suffix == ".npy" and array.is_file():
            texts = [array.parent / name for name in TEXTS if (array.parent / name).is_file()]
            if len(texts) != 1:
                raise InputError(f"{len(texts)} files of texts stand beside the vectors", where=str(array), fix=FORMS)
            return cls(array, texts)
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files or not all(file.is_file() and file.suffix == ".parquet" for file in files):
            raise InputError("There are no vectors here", where=locator, fix=FORMS)
        return cls(None, files)

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [self.array, *self.texts] if self.array else self.texts

    def read_texts(self) -> pl.DataFrame:
        """Read text_hash of every row in order, and role where the files have that column.

        Raises:
            InputError: A row has no text, or no role where others have one.
        """
        rows, schema = self._rows(), {ROLE: pl.String, "text_hash": pl.Binary}
        chunks = [pl.DataFrame(schema=schema)]
        while chunk := list(islice(rows, CHUNK_ROWS)):
            chunks.append(pl.DataFrame(chunk, schema=schema, orient="row"))
        texts = pl.concat(chunks)
        missing, first = texts[ROLE].null_count(), str(self.texts[0])
        if texts.is_empty():
            raise InputError("The files hold no text", where=first, fix=FORMS)
        if 0 < missing < texts.height:
            raise InputError(f"{missing:,} rows of {texts.height:,} have no role", where=first, fix=FORMS)
        return texts.drop(ROLE) if missing else texts

    def _rows(self) -> Iterator[tuple[str | None, bytes]]:
        for source in find_sources(str(path) for path in self.texts):
            for line, row in read_rows(source, {TEXT, ROLE}.__contains__):
                text, role = (None, None) if isinstance(row, str) else (row.get(TEXT), row.get(ROLE))
                try:
                    if not isinstance(text, str) or role not in (None, "query", "document"):
                        raise ValueError
                    yield role, hash_text(text)
                except ValueError:  # also of half a surrogate, which cannot be encoded
                    problem = row if isinstance(row, str) else f"text {text!r}, role {role!r}"
                    where = f"{source.name}, line {line}"
                    raise InputError(f"A row has no usable text and role: {problem}", where=where, fix=FORMS) from None

    def open(self, scratch: Path, name: str) -> np.ndarray:
        """Memory-map the vectors, (rows, D).

        Args:
            scratch: Folder in which Parquet is laid out as an array once; it is deleted when the index is finished.
            name: Identifies the files' content.
        """
        if self.array:
            return _memory_map(self.array)
        path = scratch / f"given-{name}.npy"
        scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                self._lay_out(path)
        return _memory_map(path)

    def dim(self) -> int:
        """Dimensions of a vector."""
        if self.array:
            return _memory_map(self.array).shape[1]
        return next((batch.shape[1] for _, batch in self._batches()), 0)

    def _lay_out(self, to: Path) -> None:
        """Write the embeddings of the Parquet files as one array of float32."""
        shape = (sum(pq.read_metadata(path).num_rows for path in self.texts), self.dim())
        with atomic_write(to) as partial:
            array, start = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape), 0
            for path, batch in self._batches():
                if batch.shape[1] != shape[1]:
                    what = f"Embeddings have {batch.shape[1]} dimensions, those before have {shape[1]}"
                    raise InputError(what, where=str(path), fix="give files of one model alone")
                array[start : start + len(batch)] = batch
                start += len(batch)
            array.flush()

    def _batches(self) -> Iterator[tuple[Path, np.ndarray]]:
        """The embeddings of Parquet files, (rows, D), batch by batch."""
        for path in self.texts:
            try:
                with pq.ParquetFile(path) as file:
                    if EMBEDDING not in file.schema_arrow.names:
                        raise InputError(f"There is no column {EMBEDDING}", where=str(path), fix=FORMS)
                    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[EMBEDDING]):
                        yield path, _dense(batch.column(EMBEDDING), path)
            except (pa.ArrowException, OSError) as error:
                raise unreadable(str(path), error) from error


def _memory_map(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(str(path), error) from error
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        what = f"The array is {array.dtype} of shape {array.shape}"
        raise InputError(what, where=str(path), fix="give rows of floats")
    return array


def _dense(column: pa.Array, path: Path) -> np.ndarray:
    """A column of lists of floats as (rows, D)."""
    lengths = set(pc.call_function("list_value_length", [column]).to_pylist())
    values = column.flatten()
    if len(lengths) != 1 or lengths & {None, 0} or values.null_count or not pa.types.is_floating(values.type):
        what = f"The column {EMBEDDING} is {column.type}, with rows of lengths {sorted(map(str, lengths))[:5]}"
        raise InputError(what, where=str(path), fix="give lists of floats, all of one length")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
