"""The guide behind one small interface: texts of a role in, unit vectors out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from ..shared.errors import ModelError
from ..shared.features import (
    Features,
    is_flat_text,
    is_padded_text,
    row_lengths,
    split_by_budget,
    split_flat,
    take_rows,
)
from ..shared.linear import OneDNNLinear
from ..shared.models import DType, find_model, fingerprint_files, load_model, pick_device, prompt_for, set_prompts
from ..shared.packing import can_pack, embed_packed
from ..shared.progress import Advance
from ..shared.schema import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TOKENIZE_ROWS = 512
CPU_BATCH_TOKENS = 1_024
ACCELERATOR_BATCH_TOKENS = 65_536


@dataclass(frozen=True)
class GuideSettings:
    """How the guide reads a text. All of it goes into the guide's fingerprint."""

    model: str
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_length: int | None = None
    dtype: DType = "float32"
    dim: int | None = None


class Guide:
    """A frozen SentenceTransformer that embeds texts by role.

    Args:
        settings: Which model, and how it reads a text.
        device: ``auto``, or a torch device string.
        batch_tokens: Padded tokens a forward pass; None picks by device. Halved when an accelerator runs out of memory.

    Raises:
        ModelError: The model is not found, is not safe to load, or has fewer dimensions than asked for.
    """

    def __init__(self, settings: GuideSettings, device: str = "auto", batch_tokens: int | None = None) -> None:
        self.folder: Path = find_model(settings.model)
        self.settings = settings
        self.device = pick_device(device)
        self.model: SentenceTransformer = self._load().eval()
        set_prompts(self.model, settings.query_prompt, settings.document_prompt)
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if self.device == "cpu" else ACCELERATOR_BATCH_TOKENS)
        full = self.model.get_embedding_dimension()
        self.dim = settings.dim or full or self._embed(["probe"], "query").shape[1]
        if full is not None and self.dim > full:
            raise ModelError(
                f"The guide has {full} dimensions, {self.dim} were asked for",
                where="--dim",
                fix=f"ask for {full} at most",
            )

    def _load(self) -> SentenceTransformer:
        """The model; with flash attention, and so without padding, where that is installed and the model takes it."""
        load = partial(
            load_model,
            self.folder,
            device=self.device,
            dtype=self.settings.dtype,
            max_length=self.settings.max_length,
        )
        half = self.settings.dtype != "float32"
        if self.device.startswith("cuda") and half and is_flash_attn_2_available():
            with suppress(ModelError):  # an encoder that knows no flash attention is refused; any other fault returns
                return load(attention="flash_attention_2")
        return load()

    def prompt(self, role: Role) -> str:
        """The prompt put before texts of a role."""
        override = self.settings.query_prompt if role == "query" else self.settings.document_prompt
        return prompt_for(self.model, role, override)

    @property
    def same_for_both_roles(self) -> bool:
        """Whether a text has one vector whatever its role."""
        routed = any(type(module).__name__ == "Router" for module in self.model.children())
        return not routed and self.prompt("query") == self.prompt("document")

    def fingerprint(self) -> dict[str, Any]:
        """All that determines a vector, JSON-ready; ``name`` informs only."""
        return {
            "name": self.settings.model,
            "files": fingerprint_files(self.folder),
            "modules": [type(module).__name__ for module in self.model.children()],
            "pooling": _pooling(self.model),
            "prompts": {"query": self.prompt("query"), "document": self.prompt("document")},
            "max_length": self.model.max_seq_length,
            "dtype": self.settings.dtype,
            "dim": self.dim,
        }

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """Embed texts.

        Tokenising runs one block ahead of computing. Batches are of similar length and bounded by padded tokens.

        Args:
            texts: T texts.
            role: Which prompt, and which route of an asymmetric model.
            advance: Called with the number of texts after each block.

        Returns:
            (T, dim) float16, unit length before rounding, in the order of ``texts``.

        Raises:
            ModelError: A vector is not finite, or of length zero; names the text.
        """
        vectors = np.empty((len(texts), self.dim), dtype=np.float16)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        blocks = [order[start : start + TOKENIZE_ROWS] for start in range(0, len(order), TOKENIZE_ROWS)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._tokenize, [texts[i] for i in blocks[0]], role) if blocks else None
            for number, block in enumerate(blocks):
                features = ahead.result() if ahead else {}
                if number + 1 < len(blocks):
                    ahead = pool.submit(self._tokenize, [texts[i] for i in blocks[number + 1]], role)
                vectors[block] = self._checked([texts[i] for i in block], self._forward(features, len(block)))
                advance(len(block))
        return vectors

    def _tokenize(self, texts: list[str], role: Role) -> Features:
        return self.model.preprocess(texts, prompt=self.prompt(role) or None, task=role)

    def _embed(self, texts: list[str], role: Role) -> np.ndarray:
        return self._forward(self._tokenize(texts, role), len(texts))

    def _forward(self, features: Features, rows: int) -> np.ndarray:
        """(rows, full dim) float32, not normalised."""
        if is_flat_text(features):
            return self._forward_flat(features)
        if not is_padded_text(features):
            return self._pass(features)
        lengths, out = row_lengths(features), None
        pending = split_by_budget(lengths, self.batch_tokens)
        while pending:
            batch = pending[0]
            try:
                vectors = self._pass(take_rows(features, batch, int(lengths[batch].max())))
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self._take_less(len(batch) * int(lengths[batch].max()))
                left = np.concatenate(pending)
                pending = [left[again] for again in split_by_budget(lengths[left], self.batch_tokens)]
                continue
            out = np.empty((rows, vectors.shape[1]), dtype=np.float32) if out is None else out
            out[batch] = vectors
            pending.pop(0)
        assert out is not None
        return out

    def _forward_flat(self, features: Features) -> np.ndarray:
        """As ``_forward``, of texts that flash attention takes without padding."""
        vectors = []
        for piece in split_flat(features, self.batch_tokens):
            try:
                vectors.append(self._pass(piece))
            except torch.OutOfMemoryError:
                if len(piece["cu_seq_lens_q"]) == 2:
                    raise
                self._take_less(piece["input_ids"].numel())
                vectors.append(self._forward_flat(piece))
        return np.concatenate(vectors)

    def _take_less(self, tokens: int) -> None:
        """After a batch of so many tokens did not fit into the accelerator's memory: half of it from here on."""
        torch.cuda.empty_cache()
        self.batch_tokens = max(1, min(self.batch_tokens, tokens) // 2)

    @torch.inference_mode()
    def _pass(self, features: Features) -> np.ndarray:
        moved = {name: self._moved(value) for name, value in features.items()}
        packed = can_pack(self.model, moved)
        with OneDNNLinear() if self.device == "cpu" else nullcontext():
            vectors = embed_packed(self.model, moved) if packed else self.model(moved)["sentence_embedding"]
        return vectors.float().cpu().numpy()

    def _moved(self, value: Any) -> Any:  # noqa: ANN401 (a tensor, or what features hold beside tensors)
        if not isinstance(value, torch.Tensor):
            return value
        if not self.device.startswith("cuda"):
            return value.to(self.device)
        return value.pin_memory().to(self.device, non_blocking=True)

    def _checked(self, texts: list[str], vectors: np.ndarray) -> np.ndarray:
        """Cut to ``dim``, scale to unit length; refuse what cannot be scaled."""
        if vectors.shape[1] < self.dim:
            raise ModelError(f"The guide returned {vectors.shape[1]} dimensions, {self.dim} were expected")
        vectors = vectors[:, : self.dim]
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            text = texts[int(bad[0])]
            raise ModelError(
                f"The guide returned {'a zero' if norms[bad[0]] == 0 else 'a non-finite'} vector",
                where=f"text {text[:80]!r}{'...' if len(text) > 80 else ''}",
                fix="try --dtype float32, or leave the text out",
            )
        return vectors / norms[:, None]


def _pooling(model: SentenceTransformer) -> list[dict[str, Any]]:
    """Configuration of every module after the transformer."""
    modules: list[Any] = list(model.children())[1:]
    configs = [module.get_config_dict() for module in modules if hasattr(module, "get_config_dict")]
    return [{key: value for key, value in config.items() if _is_plain(value)} for config in configs]


def _is_plain(value: Any) -> bool:  # noqa: ANN401 (any JSON value)
    return value is None or isinstance(value, bool | int | float | str)
