"""The token cache: the texts of an index tokenised once for each tokenizer, stored beside the index, memory-mapped.

A small student on a fast device would wait for its tokenizer in every epoch; here a batch is a gather. Students that
share tokenizer, prompts and length limit share the cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import config
from sentence_transformers import SentenceTransformer
from torch import Tensor

from ...shared.errors import IndexFaultError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.ragged import Ragged
from ...shared.guide_index.tables import read_table
from ...shared.models.lengths import Features, is_padded_text
from ...shared.progress import step
from ...shared.storage.integrity import FileRecord, checksum, damage, read_checksummed, write_checksummed
from ...shared.storage.journal import commit, commit_rows
from ...shared.storage.lock import folder_lock
from ...shared.types import Role

logger = logging.getLogger(__name__)

CACHE_FORMAT = 2
MANIFEST, IDS, OFFSETS = "manifest.json", "ids.int32", "offsets.npy"
TOKENIZE_ROWS = 2_048
PADDED, BAG = {"input_ids", "attention_mask", "token_type_ids"}, {"input_ids", "offsets"}
ROLES: tuple[Role, Role] = ("query", "document")


class TokenForm(NamedTuple):
    """The form of a student's tokenised texts, the same for every text of a role: padded rows, or a bag with offsets.

    Attributes:
        names: Names of the tensors.
        constants: By role, the features that are no tensors (the prompt's length).
        pad: Id that fills a row, on the left where ``left``.
    """

    names: frozenset[str]
    constants: dict[str, dict[str, Any]]
    pad: int
    left: bool


@dataclass(frozen=True)
class TokenCache:
    """The token ids of every text of an index, for one tokenizer; ``TokenCache.of`` makes one."""

    folder: Path
    form: TokenForm

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenCache, (self.folder, self.form)

    @classmethod
    def of(cls, index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str]) -> TokenCache | None:
        """Open the cache of a student's tokenizer, and make it first where there is none.

        Args:
            index: An open guide index.
            student: Whose tokenizer, length limit and form of features count.
            prompts: The prompt of the texts of each role.

        Returns:
            The cache, or None where texts must be tokenised batch by batch: the student's features are more than token
            ids, or no folder can be written.
        """
        form, tokenizer = _form(student, prompts), _fingerprint(student)
        if form is None or tokenizer is None:
            return None
        key = {
            "format": CACHE_FORMAT,
            "texts": [record.sha256 for record in index.manifest.shards["texts"]],
            "tokenizer": tokenizer,
            "max_length": str(student.max_seq_length),
            "prompts": prompts,
            "libraries": {name: importlib.metadata.version(name) for name in ("tokenizers", "transformers")},
        }
        root = index.layout.root
        for parent in (root.parent / f"{root.name}.tokens", Path(config.HF_DATASETS_CACHE) / "gistcache" / "tokens"):
            folder = parent / checksum(key)[:16]
            try:
                if _fault(folder, key):
                    with folder_lock(folder, wait=True):
                        if fault := _fault(folder, key):  # another process may have made it meanwhile
                            if (folder / MANIFEST).exists():
                                logger.warning("The token cache %s is made again: %s", folder, fault)
                            _make(index, student, prompts, folder, key)
                return cls(folder, form)
            except OSError as error:
                logger.warning("Tokens cannot be cached in %s: %s", parent, error)
        return None

    @cached_property
    def _tokens(self) -> Ragged:
        offsets = np.load(self.folder / OFFSETS, mmap_mode="r", allow_pickle=False)
        return Ragged(offsets, np.memmap(self.folder / IDS, dtype=np.int32, mode="r"))

    def features(self, text_ids: np.ndarray, role: Role) -> Features:
        """The features of texts (n,) of one role, as the student's own ``preprocess`` would give them."""
        ids, owner = self._tokens.rows(text_ids)
        ids, lengths = ids.astype(np.int64), np.bincount(owner, minlength=len(text_ids))
        starts, constants = np.cumsum(lengths) - lengths, self.form.constants[role]
        if self.form.names == BAG:
            return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(starts)} | constants
        width = int(lengths.max(initial=0))
        columns = np.arange(len(ids)) - starts[owner] + (width - lengths[owner] if self.form.left else 0)
        rows = {name: np.zeros((len(lengths), width), dtype=np.int64) for name in self.form.names}
        rows["input_ids"][:] = self.form.pad
        rows["input_ids"][owner, columns] = ids
        rows["attention_mask"][owner, columns] = 1
        return {name: torch.from_numpy(values) for name, values in rows.items()} | constants


def _form(student: SentenceTransformer, prompts: dict[Role, str]) -> TokenForm | None:
    """The form of a student's features; None where they are more than the ids of each text."""
    constants, names = {}, frozenset()
    for role in ROLES:
        features = student.preprocess(["a", "b c"], prompt=prompts[role] or None)
        names = frozenset(name for name, value in features.items() if isinstance(value, Tensor))
        constants[role] = {name: value for name, value in features.items() if name not in names}
        padded = is_padded_text(features) and names <= PADDED
        plain = all(value is None or isinstance(value, bool | int | str) for value in constants[role].values())
        second_segment = "token_type_ids" in names and bool(features["token_type_ids"].any())
        if not plain or second_segment or not (padded or names == BAG):
            return None
    if any(type(module).__name__ == "Router" for module in student.children()):
        return None
    tokenizer = student.tokenizer
    pad, side = getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "padding_side", "right")
    return TokenForm(names, constants, pad or 0, side == "left")


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


def _fault(folder: Path, key: dict[str, Any]) -> str:
    """Why a folder is no intact cache of this very key; empty where it is one."""
    if not (folder / MANIFEST).is_file():
        return "not finished"
    try:
        content = read_checksummed(folder / MANIFEST, "token cache's manifest")
        records = [FileRecord.from_json(record) for record in content["files"]]
    except IndexFaultError as error:
        return str(error)
    return "; ".join(damage(folder, records)) if content["key"] == key else "of another tokenizer"


def _make(
    index: GuideIndex, student: SentenceTransformer, prompts: dict[Role, str], folder: Path, key: dict[str, Any]
) -> None:
    shards, lengths = index.manifest.shards["texts"], [np.zeros(1, dtype=np.int64)]

    def write(path: Path) -> None:
        with path.open("wb") as file, step("tokenise", index.manifest.rows["texts"], "texts") as advance:
            for shard in shards:
                table = read_table(index.layout.root, shard, "texts", ["role", "text"])
                prompt = prompts[table["role"][0].as_py()]
                for batch in table.to_batches(TOKENIZE_ROWS):
                    ids, counts = _tokenize(student, batch["text"].to_pylist(), prompt)
                    file.write(ids.tobytes())
                    lengths.append(counts)
                advance(shard.rows)

    ids = commit(folder, folder / IDS, index.manifest.rows["texts"], write)
    offsets = commit_rows(folder, folder / OFFSETS, np.cumsum(np.concatenate(lengths)))
    write_checksummed(folder / MANIFEST, {"key": key, "files": [asdict(ids), asdict(offsets)]})


def _tokenize(student: SentenceTransformer, texts: list[str], prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """All token ids, int32, and how many each text has, int64."""
    features = student.preprocess(texts, prompt=prompt or None)
    tokens = features["input_ids"].numpy().astype(np.int32)
    if is_padded_text(features):
        mask = features["attention_mask"].numpy().astype(bool)
        return tokens[mask], mask.sum(axis=1)
    return tokens, np.diff(features["offsets"].numpy(), append=len(tokens))
