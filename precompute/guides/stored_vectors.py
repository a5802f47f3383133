"""A guide whose vectors exist already: each text is looked up in files, and nothing is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ...shared.errors import InputError
from ...shared.progress import Advance
from ...shared.storage.files import sha256_of
from ...shared.types import Role
from ..text_hash import TextRows, hash_text
from .base import excerpt, load_in_worker, output_dim, unit_vectors
from .vector_files import ROLE, VectorFiles

EXAMPLES = 3


class VectorsGuide:
    """Vectors from ``.npy`` or Parquet, looked up by the exact text, and by its role where the files name roles.

    Memory holds a hash and a number a text; the vectors stay on disk.

    Args:
        locator: A folder or file, see ``VectorFiles``.
        dim: Leading dimensions to keep; None keeps all.
        scratch: Folder in which the vectors of Parquet files are laid out as an array.

    Raises:
        InputError: The files are not there, not readable, or do not fit together.
        ModelError: They have fewer dimensions than requested.
    """

    runs_in_workers = True

    def __init__(self, locator: str, dim: int | None, scratch: Path) -> None:
        self._locator, self._scratch = locator, scratch
        self._files = VectorFiles.find(locator)
        self.dim = output_dim(dim, self._files.dim())
        texts = self._files.read_texts()
        self.same_for_both_roles = ROLE not in texts.columns
        self._rows = TextRows(texts)
        if self._files.array and len(self._vectors) != texts.height:
            raise InputError(
                f"There are {len(self._vectors):,} vectors and {texts.height:,} texts",
                where=str(self._files.array),
                fix="give one row of texts for each vector, in the same order",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker opens the files itself and compares their checksums."""
        return load_in_worker, (type(self), (self._locator, self.dim, self._scratch), self.fingerprint())

    @cached_property
    def _checksums(self) -> dict[str, str]:
        return {path.name: sha256_of(path) for path in self._files.paths}

    @cached_property
    def _vectors(self) -> np.ndarray:
        content = hashlib.sha256(json.dumps(self._checksums).encode()).hexdigest()
        return self._files.open(self._scratch, content[:16])

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
            raise InputError(
                f"{missing:,} of {count:,} texts have no vector, first: " + "; ".join(examples),
                where=self._locator,
                fix="embed these too, and write the texts there exactly as they stand in the pairs; "
                "those of --eval-pairs count too",
            )

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``; every text must be there, as ``expect`` checks."""
        vectors = self._vectors[self._find(texts, role)]
        advance(len(texts))
        return unit_vectors(vectors, texts, self.dim)

    def _find(self, texts: list[str], role: Role) -> np.ndarray:
        hashes = pl.Series("text_hash", [hash_text(text) for text in texts], dtype=pl.Binary)
        return self._rows.find(pl.DataFrame({ROLE: [role] * len(texts), "text_hash": hashes}))
