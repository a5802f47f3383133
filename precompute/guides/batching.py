"""Tokenised texts -> embeddings, in passes that fit the device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...shared.models.device import within_memory
from ...shared.models.lengths import (
    Features,
    is_flat_text,
    is_padded_text,
    row_lengths,
    split_by_budget,
    split_by_width,
    split_flat,
    take_rows,
)
from ...shared.models.onednn import OneDNNLinear
from ...shared.models.packed_attention import can_pack, embed_packed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CPU_BATCH_TOKENS = 1_024
CPU_LEAST_TOKENS = 256
ACCELERATOR_BATCH_TOKENS = 65_536


class Passes:
    """The forward passes of a frozen model.

    On a CPU a text's embedding does not depend on the texts computed with it, to the last bit; an accelerator's
    libraries choose their kernels by the size of a batch.

    Args:
        model: A SentenceTransformer on its device.
        device: That device.
        batch_tokens: Padded tokens a pass; None picks by device. Halved when an accelerator runs out of memory.
    """

    def __init__(self, model: SentenceTransformer, device: str, batch_tokens: int | None = None) -> None:
        self.model, self.device = model, device
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if device == "cpu" else ACCELERATOR_BATCH_TOKENS)

    def embed(self, features: Features) -> np.ndarray:
        """Embed tokenised texts.

        Args:
            features: Of R texts, as ``SentenceTransformer.preprocess`` makes them.

        Returns:
            (R, D) float32, not normalised, rows in their order.
        """
        with within_memory("give a smaller --max-length, or --dtype bfloat16; finished parts are kept"):
            while True:
                try:
                    return self._embed(features)
                except torch.OutOfMemoryError:
                    if self.batch_tokens == 1:
                        raise
                    torch.cuda.empty_cache()
                    self.batch_tokens //= 2

    def _embed(self, features: Features) -> np.ndarray:
        if is_flat_text(features):
            return np.concatenate([self._pass(piece) for piece in split_flat(features, self.batch_tokens)])
        if not is_padded_text(features):
            return self._pass(features)
        lengths = row_lengths(features)
        batches = self._batches(features, lengths)
        vectors = [
            self._pass(take_rows(features, self._filled(rows, lengths), width))[: len(rows)] for rows, width in batches
        ]
        return np.concatenate(vectors)[np.argsort(np.concatenate([rows for rows, _ in batches]))]

    def _batches(self, features: Features, lengths: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Rows that go through the model together, and how wide they are.

        On a CPU a vector does not depend on the texts computed with it: packed texts are told apart, padded ones get a
        width of their own.
        """
        if self.device == "cpu" and not can_pack(self.model, features):
            return split_by_width(lengths, self.batch_tokens)
        return [(batch, int(lengths[batch].max())) for batch in split_by_budget(lengths, self.batch_tokens)]

    def _filled(self, batch: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The rows of a batch, repeated where they are few: small matrices are multiplied in another order of sums."""
        if self.device != "cpu":
            return batch
        return np.resize(batch, max(len(batch), -(-CPU_LEAST_TOKENS // max(1, int(lengths[batch].min())))))

    @torch.inference_mode()
    def _pass(self, features: Features) -> np.ndarray:
        moved = {name: self._moved(value) for name, value in features.items()}
        packed = can_pack(self.model, moved)
        with OneDNNLinear() if self.device == "cpu" else nullcontext():
            vectors = embed_packed(self.model, moved) if packed else self.model(moved)["sentence_embedding"]
        return vectors.float().cpu().numpy()

    def _moved(self, value: Any) -> Any:  # noqa: ANN401 (a tensor, or what features hold beside tensors)
        if not isinstance(value, torch.Tensor):
            return value
        if not self.device.startswith("cuda"):
            return value.to(self.device)
        return value.pin_memory().to(self.device, non_blocking=True)
