"""A folder of a reranker's scores of one index, as `gistcache rescore` writes it.

A row of a pair has the scores of its anchor with the positive, with the pair's own negatives and with the anchor's
stored neighbours, in the index's order; the manifest says which index and which reranker they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import IndexFaultError, StaleIndexError
from ..storage.integrity import FileRecord, read_checksummed, refuse_damaged
from .guide_index import GuideIndex
from .layout import Layout
from .memory_map import temporary_array
from .ragged import padded
from .tables import read_table

RESCORED_FORMAT = 1


@dataclass(frozen=True)
class RerankerScores:
    """A finished folder of scores of an index, read by pair id.

    Attributes:
        request: What determines the scores, JSON-ready: the index's key, the reranker's fingerprint, the settings.
        shards: The files of scores, in the order of pair ids.
    """

    root: Path
    index: GuideIndex
    request: dict[str, Any]
    shards: list[FileRecord]

    @classmethod
    def load(cls, root: Path, index: GuideIndex) -> RerankerScores:
        """Read the manifest and compare the files with it.

        Raises:
            IndexFaultError: The folder is not finished, or damaged, or something else.
        """
        path = Layout(root).manifest
        if not path.is_file():
            raise IndexFaultError(
                "There are no finished scores of a reranker here",
                where=str(root),
                fix="make them with `gistcache rescore INDEX --reranker MODEL --out FOLDER`; it keeps finished shards",
            )
        content = read_checksummed(path, "manifest")
        refuse_other_scores_format(content, path)
        shards = [FileRecord.from_json(record) for record in content.pop("parts")]
        refuse_damaged(root, shards)
        return cls(root, index, content, shards)

    @classmethod
    def open(cls, root: str | Path, index: GuideIndex) -> RerankerScores:
        """Load the scores of this very index.

        Raises:
            StaleIndexError: They were made from another one.
            IndexFaultError: As ``load``.
        """
        scores = cls.load(Path(root), index)
        if (made_from := scores.request["index"]["manifest"]) != index.manifest.key:
            raise StaleIndexError(
                f"The reranker's scores are of another index: its manifest is {made_from}, "
                f"that of this one {index.manifest.key}",
                where=f"{root} and {index.layout.root}",
                fix="give the index they were made from, or rescore this one with `gistcache rescore`",
            )
        return scores

    def tables(self) -> Iterator[pa.Table]:
        """Yield shard by shard, see ``layout.RESCORED``."""
        for record in self.shards:
            yield read_table(self.root, record, "rescored")

    def positive_scores(self, pair_ids: np.ndarray) -> np.ndarray:
        """Read the scores of pairs (B,) themselves, anchor with positive: (B,) float32."""
        return np.asarray(self._scores[pair_ids, 0])

    def documents(self, pair_ids: np.ndarray) -> np.ndarray:
        """List what the reranker has read with the anchors of pairs (B,) besides their positives.

        Returns:
            (B, W) int64 text ids: the stored neighbours, then the pair's own negatives; -1 for none.
        """
        return np.column_stack([self._neighbors[pair_ids], self.index.pairs(pair_ids).negatives])

    def scores(self, pair_ids: np.ndarray) -> np.ndarray:
        """Read the scores of ``documents``: (B, W) float32."""
        return np.asarray(self._scores[pair_ids, 1:])

    @cached_property
    def _neighbors(self) -> np.ndarray:
        """(pairs, neighbours) int64: the stored neighbours of all pairs."""
        width = int(self.index.manifest.request.settings["neighbors"])
        ids = temporary_array((len(self.index), width), np.int64)
        for table in self.index.scores(["pair_id", "neighbor_ids"]):
            ids[table["pair_id"].to_numpy()] = padded(table["neighbor_ids"], width, -1, np.int64)
        return ids

    @cached_property
    def _scores(self) -> np.ndarray:
        """(pairs, 1 + neighbours + negatives) float32: the scores of all pairs."""
        widths = {
            "neighbor_scores": int(self.index.manifest.request.settings["neighbors"]),
            "negative_scores": self.index.max_negatives,
        }
        scores = temporary_array((len(self.index), 1 + sum(widths.values())), np.float32)
        for table in self.tables():
            columns = [padded(table[name], width, 0, np.float32) for name, width in widths.items()]
            scores[table["pair_id"].to_numpy()] = np.column_stack([table["positive_score"].to_numpy(), *columns])
        return scores


def refuse_other_scores_format(content: dict[str, Any], path: Path) -> None:
    """Raise IndexFaultError where a manifest or request is not one of reranker scores of this format."""
    if content.get("rescored_format") != RESCORED_FORMAT:
        raise IndexFaultError(
            f"The folder holds no scores of format version {RESCORED_FORMAT} of a reranker",
            where=str(path),
            fix="give the folder that `gistcache rescore` wrote",
        )
