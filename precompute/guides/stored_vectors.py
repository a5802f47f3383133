"""A guide whose vectors exist already: each text is looked up in files, and nothing is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...shared.data.inputs import find_sources, unreadable
from ...shared.data.readers import read_rows
from ...shared.errors import InputError
from ...shared.progress import Advance
from ...shared.storage.files import atomic_write, sha256_of
from ...shared.types import Role
from ..text_hash import TextRows, hash_text
from .base import excerpt, load_in_worker, output_dim, unit_vectors

ARRAY, TEXTS = "vectors.npy", ("texts.parquet", "texts.jsonl")
EXAMPLES, BATCH_ROWS = 3, 4_096
FORMS = (
    f"give a folder with {ARRAY} and {' or '.join(TEXTS)} (column text; and role, where a text has a vector for each), "
    "or Parquet with columns text, embedding, and role"
)


class VectorsGuide:
    """Vectors from ``.npy`` or Parquet, looked up by the exact text, and by its role where the files name roles.

    Memory holds a hash and a number a text; the vectors stay on disk.

    Args:
        locator: A folder with ``vectors.npy`` and its texts, that array itself, or Parquet: a file or a folder of them.
        dim: Leading dimensions to keep; None keeps all.
        scratch: Folder in which the vectors of Parquet files are laid out as an array; deleted with the journal.

    Raises:
        InputError: The files are not there, not readable, or do not fit together.
        ModelError: They have fewer dimensions than requested.
    """

    runs_in_workers = True

    def __init__(self, locator: str, dim: int | None, scratch: Path) -> None:
        self._locator, self._scratch = locator, scratch
        self._array, self._texts = _find_files(Path(locator))
        width = self._vectors.shape[1] if self._array else next(_read_embeddings(self._texts)).shape[1]
        self.dim = output_dim(dim, width)
        texts = _read_texts(self._texts)
        self.same_for_both_roles = "role" not in texts.columns
        self._rows = TextRows(texts)
        if self._array and len(self._vectors) != texts.height:
            what = f"There are {len(self._vectors):,} vectors and {texts.height:,} texts"
            raise InputError(what, where=str(self._array), fix="give a row of texts for each vector, in the same order")

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker opens the files itself and compares their checksums; before that, Parquet is laid out once."""
        _ = self._vectors
        return load_in_worker, (type(self), (self._locator, self.dim, self._scratch), self.fingerprint())

    @cached_property
    def _checksums(self) -> dict[str, str]:
        paths = [self._array, *self._texts] if self._array else self._texts
        return {path.name: sha256_of(path) for path in paths}

    @cached_property
    def _vectors(self) -> np.ndarray:
        """The vectors, (rows, D), memory-mapped."""
        if self._array:
            return _memory_map(self._array)
        content = hashlib.sha256(json.dumps(self._checksums).encode()).hexdigest()
        path = self._scratch / f"given-{content[:16]}.npy"
        if not path.exists():
            _lay_out(self._texts, path)
        return _memory_map(path)

    def fingerprint(self) -> dict[str, Any]:
        """See ``Guide``."""
        return {"name": f"vectors:{self._locator}", "files": self._checksums, "dim": self.dim}

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Look every text up.

        Raises:
            InputError: Some are missing; gives their number and the first ones.
        """
        count, missing, examples = 0, 0, list[str]()
        for role, part in texts:
            absent = np.flatnonzero(self._find(part, role) < 0)
            count, missing = count + len(part), missing + len(absent)
            examples += [f"{role} {excerpt(part[row])}" for row in absent[: EXAMPLES - len(examples)]]
        if missing:
            what = f"{missing:,} of {count:,} texts have no vector, first: " + "; ".join(examples)
            fix = "embed these too, those of --eval-pairs as well, and write them exactly as they stand in the pairs"
            raise InputError(what, where=self._locator, fix=fix)

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``; every text must be there, as ``expect`` checks."""
        vectors = self._vectors[self._find(texts, role)]
        advance(len(texts))
        return unit_vectors(vectors, texts, self.dim)

    def _find(self, texts: list[str], role: Role) -> np.ndarray:
        hashes = pl.Series("text_hash", [hash_text(text) for text in texts], dtype=pl.Binary)
        return self._rows.find(pl.DataFrame({"role": [role] * len(texts), "text_hash": hashes}))


def _find_files(path: Path) -> tuple[Path | None, list[Path]]:
    """The array, None where the vectors are a column of the texts' Parquet files; and the files of texts, in order."""
    array = path / ARRAY if path.is_dir() else path
    if array.suffix == ".npy" and array.is_file():
        texts = [array.with_name(name) for name in TEXTS if array.with_name(name).is_file()]
        if len(texts) != 1:
            raise InputError(f"{len(texts)} files of texts stand beside the vectors", where=str(array), fix=FORMS)
        return array, texts
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() and file.suffix == ".parquet" for file in files):
        raise InputError("There are no vectors here", where=str(path), fix=FORMS)
    return None, files


def _read_texts(paths: list[Path]) -> pl.DataFrame:
    """text_hash of every row in order, and role where the files have that column."""
    texts = pl.DataFrame(_text_rows(paths), schema={"role": pl.String, "text_hash": pl.Binary}, orient="row")
    missing = texts["role"].null_count()
    if 0 < missing < texts.height:
        raise InputError(f"{missing:,} rows of {texts.height:,} have no role", where=str(paths[0]), fix=FORMS)
    return texts.drop("role") if missing else texts


def _text_rows(paths: list[Path]) -> Iterator[tuple[str | None, bytes]]:
    for source in find_sources(map(str, paths)):
        for line, row in read_rows(source, {"text", "role"}.__contains__):
            text, role = (None, None) if isinstance(row, str) else (row.get("text"), row.get("role"))
            try:
                if not isinstance(text, str) or role not in (None, "query", "document"):
                    raise ValueError
                yield role, hash_text(text)
            except ValueError:  # also of half a surrogate, which cannot be encoded
                problem = row if isinstance(row, str) else f"text {text!r}, role {role!r}"
                where = f"{source.name}, line {line}"
                raise InputError(f"A row has no usable text and role: {problem}", where=where, fix=FORMS) from None


def _memory_map(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(str(path), error) from error
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        what = f"The array is {array.dtype} of shape {array.shape}"
        raise InputError(what, where=str(path), fix="give rows of floats")
    return array


def _lay_out(paths: list[Path], to: Path) -> None:
    """Write the embeddings of Parquet files as one array of float32."""
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    shape, start = (rows, next(_read_embeddings(paths)).shape[1]), 0
    with atomic_write(to, locked=False) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        for batch in _read_embeddings(paths):
            array[start : start + len(batch)] = batch
            start += len(batch)
        array.flush()


def _read_embeddings(paths: list[Path]) -> Iterator[np.ndarray]:
    """The embeddings of Parquet files, (rows, D), batch by batch."""
    widths = set[int | None]()
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                if "embedding" not in file.schema_arrow.names:
                    raise InputError("There is no column embedding", where=str(path), fix=FORMS)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["embedding"]):
                    column = batch.column("embedding")
                    widths |= set(pc.call_function("list_value_length", [column]).to_pylist())
                    values = column.flatten()
                    usable = len(widths) == 1 and not widths & {None, 0} and not values.null_count
                    if not usable or not pa.types.is_floating(values.type):
                        lengths = ", ".join(sorted(map(str, widths))[:5])
                        what = f"The column embedding is {column.type}, with rows of lengths {lengths}"
                        raise InputError(what, where=str(path), fix="give lists of floats, all of one length")
                    yield values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(str(path), error) from error
    if not widths:
        raise InputError("The files hold no vector", where=str(paths[0]), fix=FORMS)
