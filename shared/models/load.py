"""A model folder -> a SentenceTransformer or CrossEncoder, loaded from safetensors without running foreign code."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ModelError
from ..types import DType

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Model = TypeVar("Model")


def load_model(
    folder: Path, *, device: str = "cpu", dtype: DType = "float32", max_length: int | None = None, attention: str = ""
) -> SentenceTransformer:
    """Load a model folder that ``find_model`` has accepted.

    Args:
        folder: Local folder with safetensors weights.
        device: A torch device.
        dtype: Number type of the weights.
        max_length: Tokens after which texts are cut; None keeps the model's own limit.
        attention: One of transformers' attention implementations; empty leaves the choice to it.

    Raises:
        ModelError: The folder cannot be loaded as a SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer

    options = {"attn_implementation": attention} if attention else {}
    model = _load(SentenceTransformer, "model", folder, device, {"dtype": dtype, **options})
    if max_length is not None:
        set_max_length(model, max_length)
    return model


def load_reranker(
    folder: Path, *, device: str = "cpu", dtype: DType = "float32", max_length: int | None = None
) -> CrossEncoder:
    """Load a cross-encoder that ``find_model`` has accepted; arguments as for ``load_model``.

    Raises:
        ModelError: The folder cannot be loaded as a CrossEncoder, or the model gives a pair more than one score.
    """
    from sentence_transformers import CrossEncoder

    model = _load(CrossEncoder, "reranker", folder, device, {"dtype": dtype}, max_length=max_length)
    if model.num_labels != 1:
        what = f"The model gives a pair {model.num_labels} scores"
        raise ModelError(what, where=str(folder), fix="give a reranker: one score a pair")
    return model


def _load(
    make: Callable[..., Model], what: str, folder: Path, device: str, options: dict[str, Any], **more: object
) -> Model:
    """Load local safetensors weights with transformers' ``options``; ``more`` are arguments of ``make``."""
    more |= {"trust_remote_code": False, "local_files_only": True}
    try:
        return make(str(folder), device=device, model_kwargs={"use_safetensors": True, **options}, **more)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        raise ModelError(f"The {what} cannot be loaded", where=f"{folder}: {error}") from error


def set_max_length(model: SentenceTransformer, max_length: int) -> None:
    """Cut texts after ``max_length`` tokens, in every module that tokenizes."""
    from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

    first: Any = model[0]
    routes: list[Any] = [*first.sub_modules.values()] if isinstance(first, Router) else [[first]]
    for reader, *_ in routes:
        if isinstance(reader, StaticEmbedding):
            reader.tokenizer.enable_truncation(max_length)
        else:
            reader.max_seq_length = max_length


def text_limit(model: SentenceTransformer, requested: int | None) -> int | None:
    """Tokens after which a model cuts a text; for a static model, which has no limit of its own, the requested one."""
    own: float | None = model.max_seq_length
    return requested if own is None or math.isinf(own) else int(own)


def set_prompts(model: SentenceTransformer, query: str | None, document: str | None) -> None:
    """Set a model's prompts for both roles, which its evaluators use and ``save_pretrained`` stores.

    Each is the argument; where that is None, the model's own prompt of that name (``query``; ``document``, ``passage``
    or ``corpus``); else its default prompt. ``encode_document`` takes the first of the names that exists, so
    ``document`` is always set, if only to "".
    """
    own = dict(model.prompts or {})
    default = own.get(model.default_prompt_name or "") or ""
    names = {"query": (query, ("query",)), "document": (document, ("document", "passage", "corpus"))}
    for role, (requested, known) in names.items():
        existing = next((own[name] for name in known if own.get(name)), default)
        model.prompts[role] = existing if requested is None else requested
