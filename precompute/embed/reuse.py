"""Vectors that an older index of the same guide has already, looked up by the hash of their text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ...shared.guide_index.manifest import refuse_differences
from ...shared.guide_index.reusable_vectors import ReusableVectors
from ...shared.types import VectorDType
from ..guides.base import Guide
from ..guides.response_cache import answers_in
from ..settings import IndexSettings
from ..text_hash import TextRows


class OldVectors:
    """The texts of an older index and where their vectors are.

    Args:
        folder: The older index, finished.
        guide: The guide of the new one.

    Raises:
        IndexFaultError: The folder is no finished index, or is damaged.
    """

    def __init__(self, folder: str | Path, guide: Guide) -> None:
        self._folder, self._stored = str(folder), ReusableVectors.open(folder)
        key = ["text_hash"] if guide.same_for_both_roles else ["role", "text_hash"]
        texts = pl.from_arrow(pa.concat_tables(self._stored.text_tables(key)).select(key))
        assert isinstance(texts, pl.DataFrame)
        self._rows = TextRows(texts)

    @property
    def rounding(self) -> dict[str, Any] | None:
        """What rounding its vectors changes, as its build measured it."""
        return self._stored.measured.get("rounding")

    def refuse_other(self, guide: Guide, dtype: VectorDType) -> None:
        """Raise StaleIndexError, naming each difference, where guide or stored type are not those of the new index.

        A vector that is rounded twice would not be what a fresh build stores.
        """
        refuse_differences(
            {"guide": self._stored.guide, "settings": {"vector_dtype": self._stored.vector_dtype}},
            {"guide": guide.fingerprint(), "settings": {"vector_dtype": dtype}},
            "the older index",
            "The older index holds other vectors",
            where=f"--reuse {self._folder}",
            fix="give the guide and the settings it was made with, or leave --reuse out",
        )

    def has(self, texts: pl.DataFrame) -> np.ndarray:
        """Which of n texts (role, text_hash) the older index has: (n,) bool."""
        return self._rows.find(texts) >= 0

    def take(self, texts: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of those of n texts (role, text_hash) that the older index has.

        Returns:
            Which texts, (n,) bool, and their m vectors as stored, (m, dim).
        """
        rows = self._rows.find(texts)
        return rows >= 0, self._stored.vectors.take(rows[rows >= 0])


def open_old_vectors(settings: IndexSettings, guide: Guide) -> OldVectors | None:
    """The vectors of the index that ``--reuse`` names.

    None where it has the answers of an endpoint instead, which the guide itself reads.

    Raises:
        IndexFaultError: The folder is no finished index and has no answers, or is damaged.
    """
    if settings.reuse is None or (settings.guide.startswith("api:") and answers_in(settings.reuse)):
        return None
    return OldVectors(settings.reuse, guide)
