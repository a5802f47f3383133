"""Students: load one by its locator, cut it down to fewer transformer layers, or to its token embeddings alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import nn

from ...shared.errors import ModelError, SettingsError
from ...shared.models.load import load_model, set_max_length
from ...shared.models.locate import find_model

TABLE_NAMES = {"embedding.weight", "embeddings"}  # sentence-transformers' and model2vec's


def load_student(
    locator: str,
    *,
    layers: int | None = None,
    static: bool = False,
    max_length: int | None = None,
    device: str = "cpu",
) -> SentenceTransformer:
    """Load a student in float32, in training mode of the trainer's choosing.

    Args:
        locator: Folder, hub id or ``package:DISTRIBUTION``.
        layers: Keep this many evenly spaced transformer layers, the first and the last among them; None keeps all.
        static: Keep the token embeddings only, see ``static_student``.
        max_length: Tokens after which texts are cut; None keeps the model's own limit.
        device: Torch device.

    Raises:
        ModelError: The model is not found, is not safe, has no layers to keep or no token embeddings.
        SettingsError: More layers are asked for than there are.
    """
    folder = find_model(locator)
    model = static_student(folder) if static else load_model(folder)
    if layers is not None:
        prune_layers(model, layers)
    if max_length is not None:
        set_max_length(model, max_length)
    return model.float().to(device)


def static_student(folder: Path) -> SentenceTransformer:
    """A model that averages the embeddings of a text's tokens (sentence-transformers' ``StaticEmbedding``), normalised.

    Args:
        folder: A static model, which is taken as it is; a folder with ``tokenizer.json`` and a table of token
            embeddings in ``model.safetensors`` (``embedding.weight``, or model2vec's ``embeddings``); or a transformer,
            whose tokenizer and table of input embeddings are taken. A table is (tokens, D).

    Raises:
        ModelError: There is no such table, or no row for some token.
    """
    prompts: dict[str, Any] = {}
    if _is_table(folder):
        table = _given_table(folder)
    else:
        model = load_model(folder)
        if isinstance(model[0], StaticEmbedding):
            return model
        table = _own_table(model, folder)
        prompts = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    if table.tokenizer.get_vocab_size() > table.num_embeddings:
        raise ModelError(
            f"The tokenizer has {table.tokenizer.get_vocab_size():,} tokens, the table {table.num_embeddings:,} rows",
            where=str(folder),
            fix="give a table with a row for every token",
        )
    return SentenceTransformer(modules=[table, Normalize()], device="cpu", **prompts)


def _is_table(folder: Path) -> bool:
    """Whether a folder is a tokenizer and a table, and no model that sentence-transformers loads."""
    weights = folder / "model.safetensors"
    if (folder / "modules.json").exists() or not (weights.is_file() and (folder / "tokenizer.json").is_file()):
        return False
    try:
        with safe_open(weights, "numpy") as file:
            return not TABLE_NAMES.isdisjoint(file.keys())
    except SafetensorError:
        return False  # loading it as a model says what is wrong


def _given_table(folder: Path) -> StaticEmbedding:
    try:
        table = StaticEmbedding.load(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(
            "The table of token embeddings cannot be loaded",
            where=f"{folder}: {error}",
            fix="give a folder with tokenizer.json, and embedding.weight (or embeddings) in model.safetensors",
        ) from error
    table.tokenizer.no_truncation()
    return table


def _own_table(model: SentenceTransformer, folder: Path) -> StaticEmbedding:
    """A transformer's tokenizer and its table of input embeddings."""
    rules: Any = getattr(model.tokenizer, "backend_tokenizer", None)
    embeddings: Any = model.transformers_model and model.transformers_model.get_input_embeddings()
    if rules is None or not isinstance(embeddings, nn.Embedding):
        raise ModelError(
            "The student has no table of token embeddings, or no fast tokenizer",
            where=f"--static, {folder}",
            fix="give another --student, or a folder with tokenizer.json and the table in model.safetensors",
        )
    rules.no_truncation()
    return StaticEmbedding(rules, embedding_weights=embeddings.weight.detach().clone())


def matryoshka_dims(student: SentenceTransformer, asked: Sequence[int]) -> tuple[int, ...]:
    """The student's own dimension and the leading ones asked for, largest first; none where none is asked for.

    Raises:
        SettingsError: The student has fewer dimensions.
    """
    own = student.get_embedding_dimension()
    assert own
    if asked and max(asked) > own:
        raise SettingsError(
            f"The student has {own} dimensions, {max(asked)} were asked for",
            where="--matryoshka",
            fix=f"give numbers up to {own}",
        )
    return tuple(sorted({own, *asked}, reverse=True)) if asked else ()


def prune_layers(model: SentenceTransformer, count: int) -> None:
    """Keep ``count`` evenly spaced transformer layers, in place; weights of the others are dropped."""
    transformer = model.transformers_model
    config = getattr(transformer, "config", None)
    total = getattr(config, "num_hidden_layers", None)
    stacks = [
        (parent, name, child)
        for parent in (transformer.modules() if transformer is not None else ())
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if config is None or total is None or len(stacks) != 1:
        raise ModelError(
            "The student has no stack of transformer layers to choose from",
            where="--layers",
            fix="leave it out, or give another --student",
        )
    if not 1 <= count <= total:
        raise SettingsError(
            f"The student has {total} layers, {count} were asked for", where="--layers", fix=f"give 1 to {total}"
        )
    kept = np.linspace(0, total - 1, count).round().astype(int).tolist() if count > 1 else [total - 1]
    parent, name, stack = stacks[0]
    setattr(parent, name, nn.ModuleList(stack[i] for i in kept))
    config.num_hidden_layers = count
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == total:  # one entry a layer, such as layer_types
            setattr(config, key, [value[i] for i in kept])
