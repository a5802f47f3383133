"""A folder of a reranker's scores of one index: parts of ``schema.RESCORED``, and a manifest that says whose they are.

Each pair's row has the scores of its anchor with the positive, with the pair's own negatives and with the stored
neighbours, in the index's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import IndexFaultError, StaleIndexError
from ..storage.integrity import FileRecord, checksum, read_checksummed, refuse_damaged
from .guide_index import GuideIndex
from .layout import Layout
from .tables import read_table

RESCORED_FORMAT = 1


@dataclass(frozen=True)
class RescoredFolder:
    """A finished folder.

    Attributes:
        root: The folder.
        request: What determines its scores: the index's key, the reranker's fingerprint, the settings.
        parts: Its parts, in the order of pair ids.
    """

    root: Path
    request: dict[str, Any]
    parts: list[FileRecord]

    @classmethod
    def load(cls, root: Path) -> RescoredFolder:
        """Read the manifest and compare the files with it.

        Raises:
            IndexFaultError: The folder is not finished, or damaged, or something else.
        """
        path = Layout(root).manifest
        if not path.is_file():
            raise IndexFaultError(
                "There are no finished scores of a reranker here",
                where=str(root),
                fix="make them with `gistcache rescore INDEX --reranker MODEL --out FOLDER`; it keeps finished parts",
            )
        content = read_checksummed(path, "manifest")
        refuse_other_scores_format(content, path)
        parts = [FileRecord.from_json(record) for record in content.pop("parts")]
        refuse_damaged(root, parts)
        return cls(root, content, parts)

    @classmethod
    def open(cls, root: Path, index: GuideIndex) -> RescoredFolder:
        """As ``load``, of scores that are to be used with an index.

        Raises:
            StaleIndexError: They were made of another one.
        """
        folder = cls.load(root)
        if (made_of := folder.request["index"]["manifest"]) != index.manifest.key:
            raise StaleIndexError(
                f"The reranker's scores are of another index: its manifest is {made_of}, "
                f"that of this one {index.manifest.key}",
                where=f"{root} and {index.layout.root}",
                fix="give the index they were made of, or rescore this one with `gistcache rescore`",
            )
        return folder

    @property
    def key(self) -> str:
        """SHA-256 of what determines the scores."""
        return checksum(self.request)

    def tables(self) -> Iterator[pa.Table]:
        """Part by part, see ``schema.RESCORED``."""
        for record in self.parts:
            yield read_table(self.root, record, "rescored")


def refuse_other_scores_format(content: dict[str, Any], path: Path) -> None:
    """Raise IndexFaultError where a manifest or request is of other scores, or of none."""
    if content.get("rescored_format") != RESCORED_FORMAT:
        raise IndexFaultError(
            f"The folder holds no scores of format version {RESCORED_FORMAT} of a reranker",
            where=str(path),
            fix="give the folder that `gistcache rescore` wrote",
        )
