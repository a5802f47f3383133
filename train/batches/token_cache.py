"""The token cache: each text of an index tokenised once for each tokenizer, stored beside the index, memory-mapped.

A small student on a fast device would wait for its tokenizer in every epoch; here a batch is a gather. Students that
share tokenizer, prompts and length limit share the cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
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
from ...shared.storage.integrity import FileRecord, checksum, damage, read_checksummed, write_checksummed
from ...shared.storage.journal import Journal, commit_rows
from ...shared.storage.lock import folder_lock
from ...shared.types import Role

logger = logging.getLogger(__name__)

MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"
TOKENIZE_ROWS = 2_048
PADDED, BAG = {"input_ids", "attention_mask", "token_type_ids"}, {"input_ids", "offsets"}
ROLES: tuple[Role, Role] = ("query", "document")


class TokenForm(NamedTuple):
    """The form of a student's tokenised texts, besides their ids; it is the same for every text of a role.

    Attributes:
        padded: Whether they are padded rows; else a flat stream with offsets, as static students take it.
        names: Names of the tensors.
        constants: By role, the features that are no tensors (the prompt's length).
        pad: Id that fills a row.
        left: Whether rows are filled on the left.
    """

    padded: bool
    names: frozenset[str]
    constants: dict[str, dict[str, Any]]
    pad: int
    left: bool


class TokenCache:
    """The token ids of every text of an index, for one tokenizer; make one with ``TokenCache.of``.

    Args:
        folder: The cache.
        records: Its files: offsets and ids of each shard of texts.
        form: The form of the student's features.
    """

    def __init__(self, folder: Path, records: list[FileRecord], form: TokenForm) -> None:
        self.folder, self.form = folder, form
        self._records = records

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenCache, (self.folder, self._records, self.form)

    @classmethod
    def of(cls, index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str]) -> TokenCache | None:
        """Open the cache of a student's tokenizer, and make it first where there is none.

        Args:
            index: An open guide index.
            student: Whose tokenizer, length limit and form of features count.
            prompts: The prompt of the texts of each role.

        Returns:
            The cache, or None where texts must be tokenised batch by batch: the student's features are more than token
            ids, or no folder can be written, or it is being written by another process.
        """
        form, tokenizer = _form(student, prompts), _fingerprint(student)
        if form is None or tokenizer is None:
            return None
        key = {
            "corpus": index.manifest.request.corpus["sha256"],
            "shard_rows": [shard.rows for shard in index.manifest.shards["texts"]],
            "tokenizer": tokenizer,
            "max_length": str(student.max_seq_length),
            "prompts": {role: prompts[role] for role in ROLES},
            "libraries": {name: importlib.metadata.version(name) for name in ("tokenizers", "transformers")},
        }
        for parent in _parents(index):
            folder = parent / checksum(key)[:16]
            try:
                return cls(folder, _finished(folder, key) or _make(index, student, prompts, folder, key), form)
            except FolderLockedError as error:
                logger.warning("Tokens are not cached, texts are tokenised batch by batch: %s", error)
                return None
            except OSError as error:
                logger.warning("Tokens cannot be cached in %s: %s", parent, error)
        return None

    @cached_property
    def _shards(self) -> list[Ragged]:
        arrays = [np.load(self.folder / record.path, mmap_mode="r", allow_pickle=False) for record in self._records]
        return [Ragged(offsets, ids) for offsets, ids in zip(arrays[::2], arrays[1::2], strict=True)]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0] + [len(shard.offsets) - 1 for shard in self._shards])

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
        shards, gathered = np.searchsorted(self._starts, text_ids, side="right") - 1, []
        for number in np.unique(shards):
            places = np.flatnonzero(shards == number)
            ids, owner = self._shards[number].rows(text_ids[places] - self._starts[number])
            gathered.append((ids, places[owner]))
        ids, owner = (np.concatenate(each) for each in zip(*gathered, strict=True))
        order = np.argsort(owner, kind="stable")
        return ids[order].astype(np.int64), owner[order], np.bincount(owner, minlength=len(text_ids))


def _parents(index: GuideIndex) -> tuple[Path, Path]:
    """Where caches go: beside the index, or where that cannot be written, in the data sets cache."""
    root = index.layout.root
    return root.parent / f"{root.name}.tokens", Path(config.HF_DATASETS_CACHE) / "gistcache" / "tokens"


def _form(student: SentenceTransformer, prompts: dict[Role, str]) -> TokenForm | None:
    """The form of a student's features; None where they are more than the ids of each text."""
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
    return TokenForm(names != BAG, names, constants, pad or 0, side == "left")


def _fingerprint(student: SentenceTransformer) -> str | None:
    """A checksum of all the tokenizer's rules; None for a tokenizer that cannot be described."""
    tokenizer: Any = student.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return None
    rules = json.loads(backend.to_str())
    if backend is not tokenizer:  # both are set anew for every call; a static student keeps its own
        rules |= {"truncation": None, "padding": None}
    module: Any = next(student.children())
    saved = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    settings = {name: saved.get(name) for name in ("processing_kwargs", "do_lower_case")}
    side = getattr(tokenizer, "truncation_side", None)
    return checksum({"type": type(tokenizer).__name__, "rules": rules, "truncation_side": side, **settings})


def _finished(folder: Path, key: dict[str, Any]) -> list[FileRecord] | None:
    """The files of a finished cache of this key; None where there is none, or a damaged one, which is made again."""
    manifest, records = folder / MANIFEST, []
    if not manifest.is_file():
        return None
    try:
        content = read_checksummed(manifest, "token cache's manifest")
        records = [FileRecord.from_json(record) for record in content["files"]]
        faults = damage(folder, records) if content["key"] == key else ["manifest.json: of another tokenizer"]
    except (IndexFaultError, KeyError, TypeError) as error:
        faults = [f"manifest.json: {error}"]
    if faults:
        logger.warning("The token cache %s is made again: %s", folder, "; ".join(faults))
    return None if faults else records


def _make(
    index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str], folder: Path, key: dict[str, Any]
) -> list[FileRecord]:
    """Make the cache, or finish one that another process began; every finished shard is kept."""
    with folder_lock(folder):
        if (folder / MANIFEST).exists():  # damaged, or another tokenizer's: none of its files can be used
            (folder / JOURNAL).unlink(missing_ok=True)
            (folder / MANIFEST).unlink()
        journal, shards, records = Journal(folder / JOURNAL, folder), index.manifest.shards["texts"], []
        with step("tokenise", sum(shard.rows for shard in shards), "texts") as advance:
            for number, shard in enumerate(shards):
                paths = [folder / f"{kind}-{number:05d}.npy" for kind in ("offsets", "ids")]
                if any(path.name not in journal.done for path in paths):
                    table = read_table(index.layout.root, shard, "texts", ["role", "text"])
                    arrays = _tokenize(student, table["text"].to_pylist(), prompts[table["role"][0].as_py()])
                    for path, array in zip(paths, arrays, strict=True):
                        journal.record(commit_rows(folder, path, array))
                records += [journal.done[path.name] for path in paths]
                advance(shard.rows)
        write_checksummed(folder / MANIFEST, {"key": key, "files": [asdict(record) for record in records]})
    return records


def _tokenize(student: SentenceTransformer, texts: list[str], prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """(texts + 1,) int64 offsets and all token ids, int32."""
    ids, lengths = [], []
    for start in range(0, len(texts), TOKENIZE_ROWS):
        features = student.preprocess(texts[start : start + TOKENIZE_ROWS], prompt=prompt or None)
        tokens = features["input_ids"].numpy().astype(np.int32)
        if is_padded_text(features):
            mask = features["attention_mask"].numpy().astype(bool)
            ids.append(tokens[mask])
            lengths.append(mask.sum(axis=1))
        else:
            ids.append(tokens)
            lengths.append(np.diff(features["offsets"].numpy(), append=len(tokens)))
    return np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64), np.concatenate(ids)
