"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685), by PEFT: added to a student, merged after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from ...shared.errors import SettingsError

NAME = "default"
ALPHA_PER_RANK = 2  # the adapters' product is multiplied by alpha / rank
ADAPTERS, PREFIX = "adapter_model.safetensors", "base_model.model."


def add_adapters(student: SentenceTransformer, rank: int, seed: int) -> None:
    """Freeze a student and add a trainable low-rank update, at first zero, to each of its linear layers, in place.

    Args:
        student: A model with transformer layers.
        rank: Rank of the updates.
        seed: Seed of their first weights.

    Raises:
        SettingsError: PEFT is not installed, or the student has no layers.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise SettingsError(
            "PEFT, which makes the adapters, is not installed",
            where=f"--lora-rank {rank}",
            fix="pip install 'gistcache[peft]'",
        ) from error
    if student.transformers_model is None:
        raise SettingsError(
            "A static student has no layers to adapt", where=f"--lora-rank {rank}", fix="leave --lora-rank out"
        )
    student.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules="all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student.add_adapter(config)


def merge_adapters(student: SentenceTransformer) -> None:
    """Add the updates to the layers' own weights, in place; the model that remains needs no PEFT."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    encoder: Any = student.transformers_model
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())
    encoder.delete_adapter(NAME)


def load_adapters(student: SentenceTransformer, checkpoint: Path) -> None:
    """Load a checkpoint's adapters into a student that has adapters, in place."""
    from peft import set_peft_model_state_dict

    encoder: Any = student.transformers_model
    weights = load_file(checkpoint / ADAPTERS)
    set_peft_model_state_dict(encoder, {name.removeprefix(PREFIX): value for name, value in weights.items()}, NAME)
