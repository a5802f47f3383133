"""A guide that runs here: a SentenceTransformer, frozen, on the best device."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
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
from .base import load_in_worker, output_dim, unit_vectors
from .batching import Passes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts tokenized, and embedded, at a time: an accelerator waits for the launches of a pass, so its passes are larger.
CPU_ROWS, ACCELERATOR_ROWS = 512, 2_048


class ModelGuide:
    """A frozen SentenceTransformer that embeds texts by role.

    Args:
        settings: Which model, how it reads a text, and where it runs.

    Raises:
        ModelError: The model is not found, is not safe to load, or has fewer dimensions than requested.
    """

    runs_in_workers = True

    def __init__(self, settings: IndexSettings) -> None:
        self.folder, self.settings = find_model(settings.guide), settings
        self.dtype: DType = settings.dtype or "float32"
        self.device = pick_device(settings.device)
        self.model = self._load().eval()
        set_prompts(self.model, settings.query_prompt, settings.document_prompt)
        self.passes = Passes(self.model, self.device, settings.batch_tokens)
        width = self.model.get_embedding_dimension() or self.passes.embed(self._tokenize(["probe"], "query")).shape[1]
        self.dim = output_dim(settings.dim, width)
        routed = any(type(module).__name__ == "Router" for module in self.model.children())
        self.same_for_both_roles = not routed and self.model.prompts["query"] == self.model.prompts["document"]

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker loads its own copy on its own device; this one leaves its GPU to them until it embeds again."""
        if self.device.startswith("cuda"):
            self.model.to("cpu")
            torch.cuda.empty_cache()
        return load_in_worker, (type(self), (self.settings,), self.fingerprint())

    def _load(self) -> SentenceTransformer:
        """The model; with flash attention, and so without padding, where that is installed and the model takes it."""
        from transformers.utils.import_utils import is_flash_attn_2_available

        length = self.settings.max_length
        load = partial(load_model, self.folder, device=self.device, dtype=self.dtype, max_length=length)
        if self.device.startswith("cuda") and self.dtype != "float32" and is_flash_attn_2_available():
            with suppress(ModelError):  # of a model without flash attention; any other error is raised again below
                return load(attention="flash_attention_2")
        return load()

    def fingerprint(self) -> dict[str, Any]:
        """See ``Guide``."""
        return {
            "name": self.settings.guide,
            "files": fingerprint_files(self.folder),
            "modules": [type(module).__name__ for module in self.model.children()],
            "pooling": _module_configs(self.model),
            "prompts": {role: self.model.prompts[role] for role in ("query", "document")},
            "max_length": text_limit(self.model, self.settings.max_length),
            "dtype": self.dtype,
            "dim": self.dim,
        }

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """See ``Guide``: a model takes any text."""

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``. Texts go longest first, in blocks; the next block is tokenized while one is embedded."""
        self.model.to(self.device)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        size = CPU_ROWS if self.device == "cpu" else ACCELERATOR_ROWS
        blocks = [order[start : start + size] for start in range(0, len(order), size)]
        parts = [[texts[row] for row in block] for block in blocks]
        with ThreadPoolExecutor(1) as pool:
            tokenized = [pool.submit(self._tokenize, part, role) for part in parts[:1]]
            for number, (block, part) in enumerate(zip(blocks, parts, strict=True)):
                features = tokenized.pop().result()
                tokenized += [pool.submit(self._tokenize, after, role) for after in parts[number + 1 : number + 2]]
                vectors[block] = unit_vectors(self.passes.embed(features), part, self.dim)
                advance(len(block))
        return vectors

    def _tokenize(self, texts: list[str], role: Role) -> Features:
        return self.model.preprocess(texts, prompt=self.model.prompts[role] or None, task=role)


def _module_configs(model: SentenceTransformer) -> list[dict[str, Any]]:
    """Plain settings of every module after the transformer."""
    modules: list[Any] = list(model.children())[1:]
    configs = [module.get_config_dict() for module in modules if hasattr(module, "get_config_dict")]
    plain = (bool, int, float, str, type(None))
    return [{key: value for key, value in config.items() if isinstance(value, plain)} for config in configs]
