"""A guide that is a model run here: a SentenceTransformer, frozen, on the device at hand."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...shared.errors import ModelError
from ...shared.models.device import pick_device
from ...shared.models.lengths import Features
from ...shared.models.load import load_model, set_prompts, text_limit
from ...shared.models.locate import find_model, fingerprint_files
from ...shared.progress import Advance
from ...shared.types import DType, Role
from ..settings import IndexSettings
from .base import kept_dimensions, same_guide, shown, unit_vectors
from .batching import Passes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts tokenised, and embedded, at a time: an accelerator waits for the launches of a pass, so its passes are larger.
CPU_ROWS, ACCELERATOR_ROWS = 512, 2_048


class ModelGuide:
    """A frozen SentenceTransformer that embeds texts by role.

    Args:
        settings: Which model, how it reads a text, and where it runs.

    Raises:
        ModelError: The model is not found, is not safe to load, or has fewer dimensions than asked for.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self.folder: Path = find_model(settings.guide)
        self.settings = settings
        self.dtype: DType = settings.dtype or "float32"
        self.device = pick_device(settings.device)
        self.model: SentenceTransformer = self._load().eval()
        set_prompts(self.model, settings.query_prompt, settings.document_prompt)
        self.passes = Passes(self.model, self.device, settings.batch_tokens)
        full = self.model.get_embedding_dimension()
        self._full = full or self._embed(["probe"], "query").shape[1]
        self.dim = kept_dimensions(settings.dim, self._full)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker elsewhere loads its own guide, on its own device, and sees that it is the same.

        This one leaves its GPU to them until it is asked for vectors again.
        """
        if self.device.startswith("cuda"):
            self.model.to("cpu")
            torch.cuda.empty_cache()
        return same_guide, (type(self), (self.settings,), self.fingerprint())

    def _load(self) -> SentenceTransformer:
        """The model; with flash attention, and so without padding, where that is installed and the model takes it."""
        load = partial(
            load_model,
            self.folder,
            device=self.device,
            dtype=self.dtype,
            max_length=self.settings.max_length,
        )
        from transformers.utils.import_utils import is_flash_attn_2_available

        half = self.dtype != "float32"
        if self.device.startswith("cuda") and half and is_flash_attn_2_available():
            with suppress(ModelError):  # an encoder that knows no flash attention is refused; any other fault returns
                return load(attention="flash_attention_2")
        return load()

    @property
    def same_for_both_roles(self) -> bool:
        """Whether a text has one vector whatever its role."""
        routed = any(type(module).__name__ == "Router" for module in self.model.children())
        return not routed and self.model.prompts["query"] == self.model.prompts["document"]

    def fingerprint(self) -> dict[str, Any]:
        """All that determines a vector, JSON-ready; ``name`` informs only."""
        return {
            "name": self.settings.guide,
            "files": fingerprint_files(self.folder),
            "modules": [type(module).__name__ for module in self.model.children()],
            "pooling": _pooling(self.model),
            "prompts": {role: self.model.prompts[role] for role in ("query", "document")},
            "max_length": text_limit(self.model, self.settings.max_length),
            "dtype": self.dtype,
            "dim": self.dim,
        }

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """See ``Guide``: a model takes whatever comes."""

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``.

        Tokenising runs one block ahead of computing. Batches are of similar length and bounded by padded tokens.
        """
        self.model.to(self.device)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        rows = CPU_ROWS if self.device == "cpu" else ACCELERATOR_ROWS
        blocks = [order[start : start + rows] for start in range(0, len(order), rows)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._tokenize, [texts[i] for i in blocks[0]], role) if blocks else None
            for number, block in enumerate(blocks):
                features = ahead.result() if ahead else {}
                if number + 1 < len(blocks):
                    ahead = pool.submit(self._tokenize, [texts[i] for i in blocks[number + 1]], role)
                vectors[block] = self._checked([texts[i] for i in block], self.passes.embed(features))
                advance(len(block))
        return vectors

    def _tokenize(self, texts: list[str], role: Role) -> Features:
        return self.model.preprocess(texts, prompt=self.model.prompts[role] or None, task=role)

    def _embed(self, texts: list[str], role: Role) -> np.ndarray:
        return self.passes.embed(self._tokenize(texts, role))

    def _checked(self, texts: list[str], vectors: np.ndarray) -> np.ndarray:
        if vectors.shape != (len(texts), self._full):
            raise ModelError(
                f"The guide returned vectors of shape {vectors.shape}, {(len(texts), self._full)} was expected",
                where=f"{len(texts)} texts, first {shown(texts[0])}",
                fix="check the guide's modules",
            )
        return unit_vectors(vectors, texts, self.dim)


def _pooling(model: SentenceTransformer) -> list[dict[str, Any]]:
    """Configuration of every module after the transformer."""
    modules: list[Any] = list(model.children())[1:]
    configs = [module.get_config_dict() for module in modules if hasattr(module, "get_config_dict")]
    return [{key: value for key, value in config.items() if _is_plain(value)} for config in configs]


def _is_plain(value: Any) -> bool:  # noqa: ANN401 (any JSON value)
    return value is None or isinstance(value, bool | int | float | str)
