"""Load a student by its locator, prune its layers or keep its token embeddings, and name its dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import nn

from ...shared.errors import ModelError, SettingsError
from ...shared.models.load import load_model, set_max_length
from ...shared.models.locate import find_model

TABLE_NAMES = {"embedding.weight", "embeddings"}  # sentence-transformers' and model2vec's
TABLE_FOLDER = "a folder with tokenizer.json, and embedding.weight (or embeddings) in model.safetensors"


def load_student(
    locator: str, *, layers: int | None = None, static: bool = False, max_length: int | None = None, device: str = "cpu"
) -> SentenceTransformer:
    """Load a student with float32 weights.

    Args:
        locator: Folder, hub id or ``package:DISTRIBUTION``.
        layers: Keep this many transformer layers, see ``prune_layers``.
        static: Keep the token embeddings only, see ``static_student``.
        max_length: Tokens after which texts are cut; None keeps the model's own limit.
        device: Torch device.

    Raises:
        ModelError: The model is not found, is not safe, or has no layers to prune or no token embeddings.
        SettingsError: The model has fewer layers than ``layers``.
    """
    folder = find_model(locator)
    student = static_student(folder) if static else load_model(folder)
    if layers is not None:
        prune_layers(student, layers)
    if max_length is not None:
        set_max_length(student, max_length)
    return student.float().to(device)


def prune_layers(student: SentenceTransformer, count: int) -> None:
    """Keep ``count`` evenly spaced transformer layers, the first and the last among them, in place.

    Raises:
        ModelError: The student has no list of transformer layers.
        SettingsError: ``count`` is not between 1 and the number of layers.
    """
    transformer: Any = student.transformers_model
    config: Any = getattr(transformer, "config", None)
    total = getattr(config, "num_hidden_layers", None)
    lists = [
        (parent, name, child)
        for parent in (transformer.modules() if total else ())
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if total is None or len(lists) != 1:
        what = "The student has no list of transformer layers to choose from"
        raise ModelError(what, where="--layers", fix="leave it out, or give another --student")
    if not 1 <= count <= total:
        raise SettingsError(f"The student has {total} layers, not {count}", where="--layers", fix=f"give 1 to {total}")
    remaining = np.linspace(0, total - 1, count).round().astype(int).tolist() if count > 1 else [total - 1]
    parent, name, layers = lists[0]
    setattr(parent, name, nn.ModuleList(layers[i] for i in remaining))
    config.num_hidden_layers = count
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == total:  # one entry a layer, such as layer_types
            setattr(config, key, [value[i] for i in remaining])


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
        what, where = "The table of token embeddings cannot be loaded", f"{folder}: {error}"
        raise ModelError(what, where=where, fix=f"give {TABLE_FOLDER}") from error


def _input_embeddings(model: SentenceTransformer, folder: Path) -> StaticEmbedding:
    """A transformer's tokenizer with its table of input embeddings."""
    tokenizer: Any = getattr(model.tokenizer, "backend_tokenizer", None)
    embeddings: Any = model.transformers_model and model.transformers_model.get_input_embeddings()
    if tokenizer is None or not isinstance(embeddings, nn.Embedding):
        what = "The student has no table of token embeddings, or no fast tokenizer"
        raise ModelError(what, where=f"--static, {folder}", fix=f"give another --student, or {TABLE_FOLDER}")
    return StaticEmbedding(tokenizer, embedding_weights=embeddings.weight.detach().clone())


def matryoshka_dims(student: SentenceTransformer, leading: Sequence[int]) -> tuple[int, ...]:
    """The dimensions to train, largest first: the student's own and the leading ones; empty without leading ones.

    Raises:
        SettingsError: The student has fewer dimensions.
    """
    if not leading:
        return ()
    own, largest = student.get_embedding_dimension() or 0, max(leading)
    if largest > own:
        what = f"The student has {own} dimensions, fewer than {largest}"
        raise SettingsError(what, where="--matryoshka", fix=f"give numbers up to {own}")
    return tuple(sorted({own, *leading}, reverse=True))
