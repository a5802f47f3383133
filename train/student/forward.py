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
    """Embed tokenised columns, all of them together where their features allow it.

    Args:
        model: Maps features to a dict with ``sentence_embedding`` (rows, D).
        columns: Features of one column each.

    Returns:
        (rows, D) for each column, its rows in order.
    """
    embedded = [embed(model, group) for group in groups_of(columns)]
    if len(embedded) == len(columns):
        return embedded
    return list(embedded[0].split([len(column["input_ids"]) for column in columns]))


def groups_of(columns: Sequence[Features]) -> list[Features]:
    """Merge all columns into one, padded to the widest; return them unchanged where they cannot be merged.

    They cannot where they are no padded text (a static student's flat token stream), or differ in what is not a tensor
    (prompt lengths).
    """
    columns = list(columns)
    first = columns[0]
    if not all(is_padded_text(column) and column.keys() == first.keys() for column in columns):
        return columns
    tensors = {name for name, value in first.items() if isinstance(value, Tensor)}
    if any(column[name] != first[name] for column in columns for name in first.keys() - tensors):
        return columns
    if any(column[name].shape != column["input_ids"].shape for column in columns for name in tensors):
        return columns
    width = max(column["input_ids"].shape[1] for column in columns)
    left = any(not bool(column["attention_mask"][:, 0].all()) for column in columns)
    merged = {name: torch.cat([_pad(column[name], width, left=left) for column in columns]) for name in tensors}
    return [first | merged]


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
    lengths = row_lengths(features)
    buckets = split_by_cost(lengths, _pass_tokens(model, features["input_ids"].device.type))
    embeddings = [
        model(take_rows(features, bucket, int(lengths[bucket].max())))["sentence_embedding"] for bucket in buckets
    ]
    back = torch.as_tensor(np.argsort(np.concatenate(buckets), kind="stable"), device=embeddings[0].device)
    return torch.cat(embeddings)[back]


def _pass_tokens(model: nn.Module, device: str) -> int:
    """Estimate what one more pass of this model costs, in tokens."""
    encoder = encoder_of(model)
    half = torch.is_autocast_enabled(device) or (encoder is not None and encoder.dtype != torch.float32)
    return pass_tokens(device, getattr(getattr(encoder, "config", None), "hidden_size", None), half=half)


def _pad(values: Tensor, width: int, *, left: bool) -> Tensor:
    missing = width - values.shape[1]
    return F.pad(values, (missing, 0) if left else (0, missing)) if missing else values
