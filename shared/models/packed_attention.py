"""Texts without padding: the tokens of a whole batch in one row, and an attention that keeps the texts apart.

Everything in an encoder but its attention treats tokens one by one, so a row of all tokens gives what padded rows give,
less the padding. On a CPU, where padding costs its full price, this is the fastest form of a batch. The packed features
are those that sentence-transformers itself makes for flash attention on a GPU, so its pooling reads them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from .lengths import Features, is_padded_text, row_lengths

# Encoders whose layers hand every keyword on to the attention function, and see positions only as embeddings.
PACKABLE = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
PACKED_POOLING = frozenset({"Pooling", "Normalize", "Dense"})
ATTENTION = "gistcache_packed"
LEVELS = 2**16  # of 16 random bits

Run = tuple[int, int]  # so many texts, one after the other, of so many tokens


def can_pack(model: nn.Module, features: Features) -> bool:
    """Whether a SentenceTransformer gives packed features the embeddings that it gives padded ones, and faster."""
    modules = list(bare(model).children())
    encoder = encoder_of(model)
    return (
        encoder is not None
        and encoder.config.model_type in PACKABLE
        and encoder.config._attn_implementation == "sdpa"
        and not getattr(encoder.config, "is_decoder", False)
        and not any(getattr(module, "gradient_checkpointing", False) for module in encoder.modules())
        and encoder.device.type == "cpu"
        and all(type(module).__name__ in PACKED_POOLING for module in modules[1:])
        and is_padded_text(features)
    )


def encoder_of(model: nn.Module) -> PreTrainedModel | None:
    """The transformer that a SentenceTransformer begins with; None where it begins with something else."""
    encoder = getattr(next(bare(model).children(), None), "model", None)
    return encoder if isinstance(encoder, PreTrainedModel) else None


def bare(model: nn.Module) -> nn.Module:
    """The model itself, where it is wrapped for several processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def embed_packed(model: nn.Module, features: Features) -> Tensor:
    """Embed R padded rows, for which ``can_pack`` is true, as one packed row: (R, D) embeddings, in their order."""
    lengths = torch.as_tensor(row_lengths(features))
    order = torch.argsort(lengths, stable=True)
    encoder: Any = next(bare(model).children()).model  # type: ignore[union-attr]
    packed = pack(features, order, lengths[order], _first_position(encoder))
    with _attending_within_texts(encoder):
        embeddings = model(packed)["sentence_embedding"]
    return embeddings[torch.argsort(order)]


def pack(features: Features, order: Tensor, lengths: Tensor, first_position: int) -> Features:
    """Padded rows -> one row.

    Args:
        features: Padded text features of R rows.
        order: (R,) row numbers, by length.
        lengths: (R,) int64 tokens of the rows in that order.
        first_position: Position id of a text's first token.

    Returns:
        ``input_ids`` and all else of that shape as (1, T), ``position_ids`` (1, T), ``cu_seq_lens_q`` (R + 1,) where
        each text begins, and ``packed_runs``: texts of equal length that stand together.
    """
    mask = features["attention_mask"][order].bool()
    starts = F.pad(lengths.cumsum(0), (1, 0))
    packed = {name: value for name, value in features.items() if name != "attention_mask"}
    for name, value in packed.items():
        if isinstance(value, Tensor) and value.shape == mask.shape:
            packed[name] = value[order][mask][None]
    positions = torch.arange(int(starts[-1])) - torch.repeat_interleave(starts[:-1], lengths)
    widths, counts = torch.unique_consecutive(lengths, return_counts=True)
    packed["position_ids"] = positions[None] + first_position
    packed["cu_seq_lens_q"] = starts
    packed["packed_runs"] = list(zip(counts.tolist(), widths.tolist(), strict=True))
    return packed


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_runs: list[Run],
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ANN401 (whatever else a model hands to its attention)
) -> tuple[Tensor, None]:
    """Attention of packed texts, each over its own tokens: an attention function in transformers' form.

    Query, key and value are (1, heads, T, d), the runs stand in their order, and ``scaling`` is one over the root of d
    by default. Returns (1, T, heads, d), and no attention weights.
    """
    del module, attention_mask, kwargs
    sizes = [count * length for count, length in packed_runs]
    split = [tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)]
    outputs = [  # (count * length, heads, d) -> (count, heads, length, d)
        _attend(*(part.unflatten(0, run).transpose(1, 2) for part in parts), dropout=dropout, scaling=scaling)
        for run, *parts in zip(packed_runs, *split, strict=True)
    ]
    return torch.cat([output.transpose(1, 2).flatten(0, 1) for output in outputs])[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """Attention of texts of one length; dropout takes 16 random bits a weight, torch's own a number."""
    if dropout == 0:
        return F.scaled_dot_product_attention(query, key, value, scale=scaling)
    scores = query * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(-1, -2)
    numbers = torch.empty(-(-scores.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    dropped = round(dropout * LEVELS)
    masked = numbers[: scores.numel()].view_as(scores) < dropped - LEVELS // 2
    return scores.softmax(-1).masked_fill(masked, 0.0) @ value * (LEVELS / (LEVELS - dropped))


def _no_mask(**kwargs: Any) -> None:  # noqa: ANN401 (transformers' form of a mask function)
    """Packed rows hold no padding to mask."""
    del kwargs


@contextmanager
def _attending_within_texts(encoder: PreTrainedModel) -> Iterator[None]:
    """Let the encoder's layers use ``packed_attention`` for the time of one pass."""
    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)  # type: ignore[arg-type]
    encoder.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        encoder.config._attn_implementation = "sdpa"  # as can_pack requires


def _first_position(encoder: nn.Module) -> int:
    """RoBERTa and its kin count positions from the padding id on."""
    positions: Any = encoder.embeddings.position_embeddings  # type: ignore[union-attr]
    return 0 if positions.padding_idx is None else positions.padding_idx + 1
