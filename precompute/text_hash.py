"""Hashes of texts, and the rows of an array looked up by the hash of a text."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pyarrow as pa

HASH_BYTES = 16


def hash_text(text: str) -> bytes:
    """16 bytes that identify a text: BLAKE2b of its UTF-8."""
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()


class TextRows:
    """Finds the row of an array that belongs to a text, by the text's hash. Memory holds 24 or 32 bytes a text.

    Args:
        texts: text_hash, and role where a text has a vector for each role; rows in the order of the array. Of a text
            that appears twice, the first row counts.
    """

    def __init__(self, texts: pl.DataFrame) -> None:
        self.key = texts.columns
        keys = self._keys(texts)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def find(self, texts: pl.DataFrame) -> np.ndarray:
        """Look up n texts (role, text_hash): (n,) int64 rows, -1 where a text is missing."""
        if not len(self._sorted):
            return np.full(texts.height, -1)
        keys = self._keys(texts)
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[places] == keys, self._order[places], -1)

    def _keys(self, texts: pl.DataFrame) -> np.ndarray:
        """(n,) byte strings of one length that compare as (role, hash); or as the hash, where roles do not count."""
        arrow = texts["text_hash"].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        hashes = arrow.cast(pa.binary(HASH_BYTES))
        keys = np.frombuffer(hashes.buffers()[1] or b"", f"S{HASH_BYTES}")[hashes.offset : hashes.offset + len(hashes)]
        if "role" not in self.key:
            return keys
        return np.char.add(np.where((texts["role"] == "query").to_numpy(), b"q", b"d"), keys)
