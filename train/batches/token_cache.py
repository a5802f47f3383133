"""The token cache: each text of an index tokenised once for each tokenizer, kept beside the index, memory-mapped.

A small student on a fast device would wait for its tokenizer in every epoch; here a batch is a gather. Students that
share tokenizer, prompts and length limit share the cache.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import config
from sentence_transformers import SentenceTransformer
from torch import Tensor

from ...shared.errors import FolderLockedError, IndexFaultError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import Ragged
from ...shared.guide_index.tables import read_table
from ...shared.models.lengths import Features, is_padded_text
from ...shared.progress import step
from ...shared.storage.integrity import FileRecord, damage, read_checksummed, write_checksummed
from ...shared.storage.journal import Journal, commit_array
from ...shared.storage.lock import folder_lock
from ...shared.types import Role

logger = logging.getLogger(__name__)

MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"
TOKENIZE_ROWS = 2_048
PADDED, BAG = {"input_ids", "attention_mask", "token_type_ids"}, {"input_ids", "offsets"}
ROLES: tuple[Role, Role] = ("query", "document")


class Form(NamedTuple):
    """What a student's tokenised texts look like beside their ids, which is the same for every text of a role.

    Attributes:
        padded: Whether they are padded rows; else a flat stream with offsets, as static students take it.
        names: Names of the tensors.
        constants: By role, what is not a tensor (the prompt's length).
        pad: Id that fills a row.
        left: Whether rows are filled on the left.
    """

    padded: bool
    names: frozenset[str]
    constants: dict[str, dict[str, Any]]
    pad: int
    left: bool


class TokenCache:
    """The token ids of every text of an index, for one tokenizer; make one with ``TokenCache.of``."""

    def __init__(self, index: GuideIndex, folder: Path, records: list[FileRecord], form: Form) -> None:
        self.index, self.folder, self.form = index, folder, form
        self._records = records

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenCache, (self.index, self.folder, self._records, self.form)

    @classmethod
    def of(cls, index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str]) -> TokenCache | None:
        """Open the cache of a student's tokenizer, and make it first where there is none.

        Args:
            index: An open guide index.
            student: Whose tokenizer, length limit and form of features count.
            prompts: What is put before the texts of each role.

        Returns:
            The cache, or None where texts must be tokenised batch by batch: the student's features are more than token
            ids, or no folder can be written, or it is being written by another process.
        """
        form = _form(student, prompts)
        tokenizer = _fingerprint(student)
        if form is None or tokenizer is None:
            return None
        key = {
            "corpus": index.manifest.request.corpus["sha256"],
            "shard_rows": [part.rows for part in index.manifest.shards["texts"]],
            "tokenizer": tokenizer,
            "max_length": str(student.max_seq_length),
            "prompts": {role: prompts[role] for role in ROLES},
            "libraries": {name: importlib.metadata.version(name) for name in ("tokenizers", "transformers")},
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        for parent in _places(index):
            folder = parent / name
            try:
                return cls(index, folder, _finished(folder, key) or _make(index, student, prompts, folder, key), form)
            except FolderLockedError as error:
                logger.warning("Tokens are not cached, texts are tokenised batch by batch: %s", error)
                return None
            except OSError as error:
                logger.warning("Tokens cannot be kept in %s: %s", parent, error)
        return None

    @cached_property
    def _parts(self) -> list[Ragged]:
        arrays = [np.load(self.folder / record.path, mmap_mode="r", allow_pickle=False) for record in self._records]
        return [Ragged(offsets, ids) for offsets, ids in zip(arrays[::2], arrays[1::2], strict=True)]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0] + [len(part.offsets) - 1 for part in self._parts])

    def features(self, text_ids: np.ndarray, role: Role) -> Features:
        """The features of texts, as the student's own ``preprocess`` would give them.

        Args:
            text_ids: (n,) text ids of one role.
            role: Their role.
        """
        ids, owner, lengths = self._gather(text_ids)
        constants = dict(self.form.constants[role])
        starts = np.cumsum(lengths) - lengths
        if not self.form.padded:
            return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(starts)} | constants
        width = int(lengths.max(initial=0))
        columns = np.arange(len(ids)) - starts[owner] + (width - lengths[owner] if self.form.left else 0)
        rows = {name: np.zeros((len(lengths), width), dtype=np.int64) for name in self.form.names}
        rows["input_ids"][:] = self.form.pad
        rows["input_ids"][owner, columns] = ids
        rows["attention_mask"][owner, columns] = 1
        return {name: torch.from_numpy(values) for name, values in rows.items()} | constants

    def _gather(self, text_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids of texts end to end, the position in ``text_ids`` each belongs to, and tokens a text; int64."""
        parts = np.searchsorted(self._starts, text_ids, side="right") - 1
        values, owners = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for number in np.unique(parts):
            places = np.flatnonzero(parts == number)
            part = self._parts[number]
            ids, owner = part.rows(text_ids[places] - self._starts[number])
            values.append(ids.astype(np.int64))
            owners.append(places[owner])
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        return np.concatenate(values)[order], owner[order], np.bincount(owner, minlength=len(text_ids))


def _places(index: GuideIndex) -> tuple[Path, Path]:
    """Beside the index; where that cannot be written, in the data sets cache."""
    root = index.layout.root
    return root.parent / f"{root.name}.tokens", Path(config.HF_DATASETS_CACHE) / "gistcache" / "tokens"


def _form(student: SentenceTransformer, prompts: dict[Role, str]) -> Form | None:
    """What the student's features look like; None where they are more than the ids of each text."""
    constants, names = {}, frozenset()
    for role in ROLES:
        features = student.preprocess(["a", "b c"], prompt=prompts[role] or None)
        names = frozenset(name for name, value in features.items() if isinstance(value, Tensor))
        constants[role] = {name: value for name, value in features.items() if name not in names}
        padded = is_padded_text(features) and names <= PADDED
        plain = all(value is None or isinstance(value, bool | int | str) for value in constants[role].values())
        routed = any(type(module).__name__ == "Router" for module in student.children())
        if routed or not plain or not (padded or names == BAG):
            return None
        if "token_type_ids" in names and bool(features["token_type_ids"].any()):
            return None
    tokenizer = student.tokenizer
    pad, side = getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "padding_side", "right")
    return Form(names != BAG, names, constants, pad or 0, side == "left")


def _fingerprint(student: SentenceTransformer) -> str | None:
    """A hash of all the tokenizer's rules; None for one that has no such description."""
    tokenizer: Any = student.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return None
    rules = json.loads(backend.to_str())
    if backend is not tokenizer:  # set anew for every call, and `max_length` has it; a static student keeps its own
        rules |= {"truncation": None, "padding": None}
    module: Any = next(student.children())
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    side = getattr(tokenizer, "truncation_side", None)
    content = [type(tokenizer).__name__, rules, side, config.get("processing_kwargs"), config.get("do_lower_case")]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def _finished(folder: Path, key: dict[str, Any]) -> list[FileRecord] | None:
    """The parts of a finished cache of this key; None where there is none, or a damaged one, which is made again."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return None
    try:
        held = read_checksummed(manifest, "token cache's manifest")
        records = [FileRecord.from_json(record) for record in held["parts"]]
        faults = damage(folder, records) if held["key"] == key else ["manifest.json: of another tokenizer"]
    except (IndexFaultError, KeyError, TypeError) as error:
        faults = [f"manifest.json: {error}"]
        records = []
    if faults:
        logger.warning("The token cache %s is made again: %s", folder, "; ".join(faults))
        return None
    return records


def _make(
    index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str], folder: Path, key: dict[str, Any]
) -> list[FileRecord]:
    with folder_lock(folder):
        if (folder / MANIFEST).exists():  # damaged, or another tokenizer's: nothing of it is kept
            (folder / JOURNAL).unlink(missing_ok=True)
            (folder / MANIFEST).unlink()
        journal = Journal(folder / JOURNAL, folder)
        parts = index.manifest.shards["texts"]
        with step("tokenise", sum(part.rows for part in parts), "texts") as advance:
            for number, part in enumerate(parts):
                paths = [folder / f"{kind}-{number:05d}.npy" for kind in ("offsets", "ids")]
                if any(path.name not in journal.done for path in paths):
                    table = read_table(index.layout.root, part, "texts", ["role", "text"])
                    arrays = _tokenised(student, table["text"].to_pylist(), prompts[table["role"][0].as_py()])
                    for path, array in zip(paths, arrays, strict=True):
                        journal.record(commit_array(folder, path, array))
                advance(part.rows)
        records = [
            journal.done[f"{kind}-{number:05d}.npy"] for number in range(len(parts)) for kind in ("offsets", "ids")
        ]
        write_checksummed(folder / MANIFEST, {"key": key, "parts": [asdict(record) for record in records]})
    return records


def _tokenised(student: SentenceTransformer, texts: list[str], prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """(texts + 1,) int64 offsets and all token ids, int32."""
    ids, lengths = [], []
    for start in range(0, len(texts), TOKENIZE_ROWS):
        for row in _rows(student.preprocess(texts[start : start + TOKENIZE_ROWS], prompt=prompt or None)):
            ids.append(row.astype(np.int32))
            lengths.append(len(row))
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.concatenate(ids)


def _rows(features: Features) -> Iterator[np.ndarray]:
    """Token ids of each text."""
    ids = features["input_ids"].numpy()
    if is_padded_text(features):
        yield from (row[kept] for row, kept in zip(ids, features["attention_mask"].numpy().astype(bool), strict=True))
    else:
        yield from np.split(ids, features["offsets"].numpy()[1:])
