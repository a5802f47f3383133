"""What an endpoint has answered, kept on disk until the index is finished: nothing is paid for twice."""

from __future__ import annotations

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...shared.guide_index.layout import Layout
from ...shared.storage.files import atomic_write
from ...shared.storage.remote import Remote, is_url
from ..output.store import Store

logger = logging.getLogger(__name__)

FOLDER = "answers"


def answers_in(index: str | Path | None) -> Path | None:
    """The answers that an unfinished index holds, if it does."""
    folder = Layout(Path(index)).building / FOLDER if index and not is_url(index) else None
    return folder if folder and folder.is_dir() else None


class Answers:
    """Vectors by the key of what was sent, one small file an answered request.

    A file is written whole and durably as soon as its answer is there, by whichever process got it; its name is the
    SHA-256 of its content. Only keys stay in memory.

    Args:
        place: The index that is being built; the files lie beside its journal, and go when it does.
        older: The answers of another unfinished index, which are read too.
    """

    def __init__(self, place: Store, older: Path | None = None) -> None:
        self._place, self._older, self._folder = place, older, place.layout.building / FOLDER
        self._read: set[Path] = set()
        self._files: dict[bytes, Path] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._place, self._older)

    def __contains__(self, key: bytes) -> bool:
        return key in self._files

    def dim(self, key: bytes) -> int:
        """Dimensions of a vector that is there."""
        return np.load(self._files[key], allow_pickle=False)["vector"].shape[1]

    def refresh(self) -> None:
        """Find what has been answered since, here and in other processes."""
        if self._place.remote:
            self._fetch(self._place.remote)
        folders = [self._folder, self._older] if self._older else [self._folder]
        for path in sorted({path for folder in folders for path in folder.glob("*.npy")} - self._read):
            self._read.add(path)
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.stem:
                logger.warning("%s: this answer is damaged; its texts are sent again", path)
                continue
            for key in np.load(io.BytesIO(data), allow_pickle=False)["key"]:
                self._files[key.tobytes()] = path

    def _fetch(self, remote: Remote) -> None:
        for name in remote.sizes():
            path = self._place.root / name
            if path.parent == self._folder and not path.exists():
                with atomic_write(path, locked=False) as partial:
                    remote.get(name, partial)

    def fill(self, keys: Sequence[bytes], vectors: np.ndarray) -> list[int]:
        """Put the vectors that are there into the rows of their keys.

        Args:
            keys: n keys.
            vectors: (n, dim) float32, written to.

        Returns:
            The rows whose answers are not there.
        """
        self.refresh()
        rows_of: dict[Path, list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            if key in self._files:
                rows_of[self._files[key]].append(row)
        missing = set(range(len(keys)))
        for path, rows in rows_of.items():
            answer = np.load(path, allow_pickle=False)
            place = {key.tobytes(): number for number, key in enumerate(answer["key"])}
            vectors[rows] = answer["vector"][[place[keys[row]] for row in rows]]
            missing -= set(rows)
        return sorted(missing)

    def keep(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Write an answer: n keys of 16 bytes, and their (n, dim) float32."""
        answer = np.empty(len(keys), dtype=[("key", "V16"), ("vector", "<f4", vectors.shape[1:])])
        answer["key"], answer["vector"] = np.frombuffer(b"".join(keys), dtype="V16"), vectors
        content = io.BytesIO()
        np.save(content, answer, allow_pickle=False)
        path = self._folder / f"{hashlib.sha256(content.getvalue()).hexdigest()}.npy"
        with atomic_write(path, locked=False) as partial:
            partial.write_bytes(content.getvalue())
        self._place.push(path)
