"""The student's forward pass over a batch: all columns at once, with little padding.

On a CPU, where the model allows it, the batch is packed; else it is padded in as many buckets of similar length as save
time. The gradient is that of one padded pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...shared.models.lengths import Features, is_padded_text, pass_tokens, row_lengths, split_by_cost, take_rows
from ...shared.models.onednn import OneDNNLinear
from ...shared.models.packed_attention import can_pack, embed_packed, encoder_of


def embed_columns(model: nn.Module, columns: Sequence[Features]) -> list[Tensor]:
    """Embed tokenized columns, all of them together where their features allow it.

    Args:
        model: Maps features to a dict with ``sentence_embedding`` (rows, D).
        columns: Features of one column each.

    Returns:
        (rows, D) for each column, its rows in order.
    """
    if not all(_can_follow(columns[0], column) for column in columns):
        return [embed(model, column) for column in columns]
    width = max(column["input_ids"].shape[1] for column in columns)
    left = any(not bool(column["attention_mask"][:, 0].all()) for column in columns)
    tensors = [name for name, value in columns[0].items() if isinstance(value, Tensor)]
    merged = {name: torch.cat([_pad(column[name], width, left=left) for column in columns]) for name in tensors}
    return list(embed(model, {**columns[0], **merged}).split([len(column["input_ids"]) for column in columns]))


def _can_follow(first: Features, column: Features) -> bool:
    """Whether a column can be merged with the first: padded text, and alike in what is no tensor (prompt lengths)."""
    return (
        is_padded_text(column)
        and column.keys() == first.keys()
        and all(
            value.shape == column["input_ids"].shape if isinstance(value, Tensor) else value == first[name]
            for name, value in column.items()
        )
    )


def longest_first(column: Features) -> tuple[Features, Tensor | slice]:
    """Sort a column by length, longest first, unless it is no padded text; also return what restores its order."""
    if not is_padded_text(column):
        return column, slice(None)
    order = np.argsort(-row_lengths(column), kind="stable")
    return take_rows(column, order, column["input_ids"].shape[1]), torch.as_tensor(np.argsort(order))


def embed(model: nn.Module, features: Features) -> Tensor:
    """Embed one column, or several that are merged: (rows, D)."""
    if not is_padded_text(features):
        return model(features)["sentence_embedding"]
    with OneDNNLinear() if features["input_ids"].device.type == "cpu" else nullcontext():
        return embed_packed(model, features) if can_pack(model, features) else _embed_buckets(model, features)


def _embed_buckets(model: nn.Module, features: Features) -> Tensor:
    device, encoder = features["input_ids"].device, encoder_of(model)
    half = torch.is_autocast_enabled(device.type) or (encoder is not None and encoder.dtype != torch.float32)
    hidden_size = getattr(encoder and encoder.config, "hidden_size", None)
    lengths = row_lengths(features)
    buckets = split_by_cost(lengths, pass_tokens(device.type, hidden_size, half=half))
    embeddings = [
        model(take_rows(features, bucket, int(lengths[bucket].max())))["sentence_embedding"] for bucket in buckets
    ]
    back = torch.as_tensor(np.argsort(np.concatenate(buckets), kind="stable"), device=device)
    return torch.cat(embeddings)[back]


def _pad(values: Tensor, width: int, *, left: bool) -> Tensor:
    missing = width - values.shape[1]
    return F.pad(values, (missing, 0) if left else (0, missing)) if missing else values
