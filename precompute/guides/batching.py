"""Forward passes of a frozen model: tokenized texts -> embeddings, in batches that fit the device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...shared.models.device import within_memory
from ...shared.models.lengths import Features, is_padded_text, row_lengths, split_by_budget, split_flat, take_rows
from ...shared.models.onednn import OneDNNLinear
from ...shared.models.packed_attention import can_pack, embed_packed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 1_024, 65_536


class Passes:
    """Embeds texts in batches of similar length, bounded by their padded tokens.

    Args:
        model: A SentenceTransformer on its device.
        device: That device.
        batch_tokens: Padded tokens a pass; None picks by device. Halved when an accelerator runs out of memory.
    """

    def __init__(self, model: SentenceTransformer, device: str, batch_tokens: int | None = None) -> None:
        self.model, self.device = model, device
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if device == "cpu" else ACCELERATOR_BATCH_TOKENS)

    def embed(self, features: Features) -> np.ndarray:
        """Embed R texts, as ``SentenceTransformer.preprocess`` returns them: (R, D) float32, not normalized."""
        with within_memory("give a smaller --max-length, or --dtype bfloat16; finished shards are kept"):
            while True:
                try:
                    return self._embed(features)
                except torch.OutOfMemoryError:
                    if self.batch_tokens == 1:
                        raise
                    torch.cuda.empty_cache()
                    self.batch_tokens //= 2

    def _embed(self, features: Features) -> np.ndarray:
        if "cu_seq_lens_q" in features:
            return np.concatenate([self._pass(piece) for piece in split_flat(features, self.batch_tokens)])
        if not is_padded_text(features):
            return self._pass(features)
        lengths = row_lengths(features)
        batches = split_by_budget(lengths, self.batch_tokens)
        vectors = [self._pass(take_rows(features, rows, int(lengths[rows].max()))) for rows in batches]
        return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]

    @torch.inference_mode()
    def _pass(self, features: Features) -> np.ndarray:
        moved = {name: self._move(value) if isinstance(value, Tensor) else value for name, value in features.items()}
        with OneDNNLinear() if self.device == "cpu" else nullcontext():
            packed = can_pack(self.model, moved)
            vectors = embed_packed(self.model, moved) if packed else self.model(moved)["sentence_embedding"]
        return vectors.float().cpu().numpy()

    def _move(self, tensor: Tensor) -> Tensor:
        cuda = self.device.startswith("cuda")
        return (tensor.pin_memory() if cuda else tensor).to(self.device, non_blocking=cuda)
