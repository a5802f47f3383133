"""Vectors that an older index of the same guide has already, looked up by the hash of their text."""

from __future__ import annotations

from pathlib import Path

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
    """The texts of an older index, finished, and where their vectors are.

    Attributes:
        vectors: (texts, dim) as stored.
        rounding: What rounding them changes, as their build measured it.

    Raises:
        IndexFaultError: The folder is no finished index, or is damaged.
    """

    def __init__(self, folder: str | Path, guide: Guide) -> None:
        self._folder, self._stored = str(folder), ReusableVectors.open(folder)
        key = ["text_hash"] if guide.same_for_both_roles else ["role", "text_hash"]
        texts = pl.from_arrow(pa.concat_tables(self._stored.text_tables(key)).select(key))
        assert isinstance(texts, pl.DataFrame)
        self._rows = TextRows(texts)
        self.vectors, self.rounding = self._stored.vectors, self._stored.measured.get("rounding")

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

    def find(self, texts: pl.DataFrame) -> np.ndarray:
        """The rows of n texts (role, text_hash) in ``vectors``: (n,) int64, -1 where the older index lacks a text."""
        return self._rows.find(texts)


def open_old_vectors(settings: IndexSettings, guide: Guide) -> OldVectors | None:
    """The vectors of the index that ``--reuse`` names.

    None where it has the answers of an endpoint instead, which the guide itself reads.

    Raises:
        IndexFaultError: The folder is no finished index and has no answers, or is damaged.
    """
    if settings.reuse is None or (settings.guide.startswith("api:") and answers_in(settings.reuse)):
        return None
    return OldVectors(settings.reuse, guide)
