"""The reranker behind one small interface: pairs of texts in, scores out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from ..shared.errors import ModelError
from ..shared.linear import OneDNNLinear
from ..shared.models import DType, find_model, fingerprint_files, load_reranker, pick_device


class Reranker:
    """A frozen cross-encoder.

    Args:
        model: Its locator: a folder, a hub id, or ``package:DISTRIBUTION``.
        max_length: Tokens of a pair after which it is cut; None keeps the model's own limit.
        dtype: Number type it computes in.
        device: ``auto``, or a torch device string.
        batch_size: Pairs a forward pass.

    Raises:
        ModelError: The model is not found, is not safe to load, or is no reranker.
    """

    def __init__(self, model: str, max_length: int | None, dtype: DType, device: str, batch_size: int) -> None:
        self.name, self.folder, self.batch_size = model, find_model(model), batch_size
        self.device = pick_device(device)
        self.dtype: DType = dtype
        self.model = load_reranker(self.folder, device=self.device, dtype=dtype, max_length=max_length)

    def fingerprint(self) -> dict[str, Any]:
        """All that determines a score, JSON-ready; ``name`` informs only."""
        return {
            "name": self.name,
            "files": fingerprint_files(self.folder),
            "max_length": self.model.max_seq_length,
            "dtype": self.dtype,
            "activation": type(self.model.activation_fn).__name__,
        }

    def scores(self, anchors: list[str], documents: list[str]) -> np.ndarray:
        """The score of each anchor with its document, after the model's own activation: (n,) float32.

        Raises:
            ModelError: A score is not finite; names the text.
        """
        pairs = list(zip(anchors, documents, strict=True))
        with OneDNNLinear() if self.device == "cpu" else nullcontext():
            scores = self.model.predict(pairs, batch_size=self.batch_size, show_progress_bar=False)
        scores = np.asarray(scores, dtype=np.float32)
        if bad := np.flatnonzero(~np.isfinite(scores)).tolist():
            raise ModelError(
                "The reranker returned a score that is not finite",
                where=f"text {documents[bad[0]][:80]!r}",
                fix="try --dtype float32",
            )
        return scores
