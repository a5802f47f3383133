"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685), by PEFT: added to a student, merged after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from ...shared.errors import SettingsError

NAME = "default"
ADAPTERS, PREFIX = "adapter_model.safetensors", "base_model.model."


def add_adapters(student: SentenceTransformer, rank: int, seed: int) -> None:
    """Freeze a student and add a trainable low-rank update, at first zero, to each of its linear layers, in place.

    Raises:
        SettingsError: PEFT is not installed, or the student has no layers.
    """
    where = f"--lora-rank {rank}"
    try:
        from peft import LoraConfig
    except ImportError as error:
        fix = "pip install 'gistcache[peft]'"
        raise SettingsError("PEFT, which makes the adapters, is not installed", where=where, fix=fix) from error
    if student.transformers_model is None:
        raise SettingsError("A static student has no layers to adapt", where=where, fix="leave --lora-rank out")
    student.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


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

    weights = {name.removeprefix(PREFIX): value for name, value in load_file(checkpoint / ADAPTERS).items()}
    set_peft_model_state_dict(student.transformers_model, weights, NAME)
