"""A guide whose vectors exist already: each text is found in files, and nothing is computed."""

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
from .base import kept_dimensions, same_guide, shown, unit_vectors
from .vector_files import ROLE, GivenVectors

EXAMPLES = 3


class VectorsGuide:
    """Vectors from ``.npy`` or Parquet, found by the exact text, and by its role where the files name roles.

    Memory holds 16 bytes and a number a text; the vectors stay on disk.

    Args:
        locator: A folder or file, see ``GivenVectors``.
        dim: Leading dimensions to keep; None keeps all.
        scratch: Where Parquet is laid out as an array.

    Raises:
        InputError: The files are not there, not readable, or do not fit together.
        ModelError: They have fewer dimensions than asked for.
    """

    def __init__(self, locator: str, dim: int | None, scratch: Path) -> None:
        self._locator, self._scratch = locator, scratch
        self._given = GivenVectors.find(locator)
        self.dim = kept_dimensions(dim, self._given.dim())
        texts = self._given.read_texts()
        self.same_for_both_roles = ROLE not in texts.columns
        self._rows = TextRows(texts)
        if self._given.array and len(self._vectors) != texts.height:
            raise InputError(
                f"There are {len(self._vectors):,} vectors and {texts.height:,} texts",
                where=str(self._given.array),
                fix="give one row of texts for each vector, in the same order",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker elsewhere opens the files itself, and sees that they are the same."""
        return same_guide, (type(self), (self._locator, self.dim, self._scratch), self.fingerprint())

    @cached_property
    def _files(self) -> dict[str, str]:
        return {path.name: sha256_of(path) for path in self._given.files}

    @cached_property
    def _vectors(self) -> np.ndarray:
        content = hashlib.sha256(json.dumps(self._files).encode()).hexdigest()
        return self._given.mapped(self._scratch, content[:16])

    def fingerprint(self) -> dict[str, Any]:
        """See ``Guide``."""
        return {"name": f"vectors:{self._locator}", "files": self._files, "dim": self.dim}

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Look every text up.

        Raises:
            InputError: Some are not there; says how many, and shows the first.
        """
        count, missing, examples = 0, 0, list[str]()
        for role, part in texts:
            absent = np.flatnonzero(self._find(part, role) < 0)
            count, missing = count + len(part), missing + absent.size
            wanted = EXAMPLES - len(examples)
            examples += [f"{role} {shown(part[row])}" for row in absent[:wanted]]
        if missing:
            raise InputError(
                f"{missing:,} of {count:,} texts have no vector, first: " + "; ".join(examples),
                where=self._locator,
                fix="embed these too, and write the texts there exactly as they stand in the pairs; "
                "those of --eval-pairs count too",
            )

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``."""
        vectors = self._vectors[self._find(texts, role)]
        advance(len(texts))
        return unit_vectors(vectors, texts, self.dim)

    def _find(self, texts: list[str], role: Role) -> np.ndarray:
        hashes = pl.Series("text_hash", [hash_text(text) for text in texts], dtype=pl.Binary)
        return self._rows.find(pl.DataFrame({ROLE: [role] * len(texts), "text_hash": hashes}))
