"""Texts of an index by id."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa

from .layout import Layout
from .manifest import Manifest
from .tables import read_table

CACHED_TEXT_SHARDS = 32


class OpenedFolder(Protocol):
    """What ``Texts`` needs of a ``GuideIndex``, which itself uses ``Texts``."""

    layout: Layout
    manifest: Manifest


class Texts:
    """Texts by id; the shards used last stay decoded, because consecutive pairs have nearby ids."""

    def __init__(self, index: OpenedFolder) -> None:
        root, records = index.layout.root, index.manifest.shards["texts"]
        self._starts = np.cumsum([0, *(record.rows for record in records)])

        @lru_cache(CACHED_TEXT_SHARDS)
        def shard(number: int) -> pa.Array:
            texts = read_table(root, records[number], "texts", ["text"])["text"]
            return texts.cast(pa.large_string()).combine_chunks()

        self._shard = shard

    def take(self, ids: np.ndarray) -> pa.Array:
        """(n,) ids -> n texts, in order."""
        numbers = np.searchsorted(self._starts, ids, side="right") - 1
        chunks = [pa.array([], pa.large_string())]  # there may be no ids
        for number in np.unique(numbers).tolist():
            chunks.append(self._shard(number).take(pa.array(ids[numbers == number] - self._starts[number])))
        places = np.argsort(np.argsort(numbers, kind="stable"))  # of each text among the chunks
        return pa.chunked_array(chunks, pa.large_string()).combine_chunks().take(pa.array(places))
