"""Static students: a text's embedding is the mean of its tokens' embeddings, with no transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import nn

from ...shared.errors import ModelError
from ...shared.models.load import load_model

TABLE_NAMES = {"embedding.weight", "embeddings"}  # sentence-transformers' and model2vec's


def static_student(folder: Path) -> SentenceTransformer:
    """Make a model of sentence-transformers' ``StaticEmbedding`` and ``Normalize``.

    Args:
        folder: A static model, which is returned as it is; a folder with ``tokenizer.json`` and a table of token
            embeddings in ``model.safetensors`` (``embedding.weight``, or model2vec's ``embeddings``); or a transformer,
            whose tokenizer and table of input embeddings are used. A table is (tokens, D).

    Raises:
        ModelError: There is no such table, or it has fewer rows than the tokenizer has tokens.
    """
    prompts: dict[str, Any] = {}
    table = _load_table(folder)
    if table is None:
        model = load_model(folder)
        if isinstance(model[0], StaticEmbedding):
            return model
        table = _input_embeddings(model, folder)
        prompts = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    table.tokenizer.no_truncation()
    tokens, rows = table.tokenizer.get_vocab_size(), table.num_embeddings
    if tokens > rows:
        what = f"The tokenizer has {tokens:,} tokens, the table {rows:,} rows"
        raise ModelError(what, where=str(folder), fix="give a table with a row for every token")
    return SentenceTransformer(modules=[table, Normalize()], device="cpu", **prompts)


def _load_table(folder: Path) -> StaticEmbedding | None:
    """The tokenizer and table in a folder; None where the folder holds a model that sentence-transformers loads."""
    weights = folder / "model.safetensors"
    if (folder / "modules.json").exists() or not (weights.is_file() and (folder / "tokenizer.json").is_file()):
        return None
    try:
        with safe_open(weights, "numpy") as file:
            is_table = not TABLE_NAMES.isdisjoint(file.keys())
        return StaticEmbedding.load(str(folder), local_files_only=True) if is_table else None
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(
            "The table of token embeddings cannot be loaded",
            where=f"{folder}: {error}",
            fix="give a folder with tokenizer.json, and embedding.weight (or embeddings) in model.safetensors",
        ) from error


def _input_embeddings(model: SentenceTransformer, folder: Path) -> StaticEmbedding:
    """A transformer's tokenizer with its table of input embeddings."""
    tokenizer: Any = getattr(model.tokenizer, "backend_tokenizer", None)
    embeddings: Any = model.transformers_model and model.transformers_model.get_input_embeddings()
    if tokenizer is None or not isinstance(embeddings, nn.Embedding):
        raise ModelError(
            "The student has no table of token embeddings, or no fast tokenizer",
            where=f"--static, {folder}",
            fix="give another --student, or a folder with tokenizer.json and the table in model.safetensors",
        )
    return StaticEmbedding(tokenizer, embedding_weights=embeddings.weight.detach().clone())
