"""Students: load one by its locator, and cut it down to fewer transformer layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ..shared.errors import ModelError, SettingsError
from ..shared.models import find_model, load_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_student(
    locator: str, *, layers: int | None = None, max_length: int | None = None, device: str = "cpu"
) -> SentenceTransformer:
    """Load a student in float32, in training mode of the trainer's choosing.

    Args:
        locator: Folder, hub id or ``package:DISTRIBUTION``.
        layers: Keep this many evenly spaced transformer layers, the first and the last among them; None keeps all.
        max_length: Tokens after which texts are cut; None keeps the model's own limit.
        device: Torch device.

    Raises:
        ModelError: The model is not found, is not safe, or has no layers to keep.
        SettingsError: More layers are asked for than there are.
    """
    model = load_model(find_model(locator), device=device, max_length=max_length)
    if layers is not None:
        keep_layers(model, layers)
    return model


def keep_layers(model: SentenceTransformer, count: int) -> None:
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
        raise ModelError("The student has no stack of transformer layers to choose from", where="--layers")
    if not 1 <= count <= total:
        raise SettingsError(f"The student has {total} layers, {count} were asked for", where="--layers")
    kept = np.linspace(0, total - 1, count).round().astype(int).tolist() if count > 1 else [total - 1]
    parent, name, stack = stacks[0]
    setattr(parent, name, nn.ModuleList(stack[i] for i in kept))
    config.num_hidden_layers = count
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == total:  # one entry a layer, such as layer_types
            setattr(config, key, [value[i] for i in kept])
