"""The reranker: a cross-encoder that takes pairs of texts and returns scores."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ...shared.errors import ModelError
from ...shared.models.device import pick_device, within_memory
from ...shared.models.load import load_reranker
from ...shared.models.locate import find_model, fingerprint_files
from ...shared.models.onednn import OneDNNLinear
from .settings import RescoreSettings

# Names of transformers' models with scores, or with the yes and no that sentence-transformers turns into scores.
SCORING = ("ForSequenceClassification", "ForCausalLM")


class Reranker:
    """A frozen cross-encoder; raises ModelError where it is not found, not safe to load, or no reranker."""

    def __init__(self, settings: RescoreSettings) -> None:
        self.settings, self.folder = settings, find_model(settings.reranker)
        _refuse_without_scores(self.folder, settings.reranker)
        self.device = pick_device(settings.device)
        self.model = load_reranker(
            self.folder, device=self.device, dtype=settings.dtype, max_length=settings.max_length
        )

    def fingerprint(self) -> dict[str, Any]:
        """List all that determines a score, JSON-ready; ``name`` does not, and is there for people."""
        return {
            "name": self.settings.reranker,
            "files": fingerprint_files(self.folder),
            "max_length": self.model.max_seq_length,
            "dtype": self.settings.dtype,
            "activation": type(self.model.activation_fn).__name__,
        }

    def scores(self, anchors: list[str], documents: list[str]) -> np.ndarray:
        """Score each anchor with its document, after the model's own activation: (n,) float32.

        Raises:
            ModelError: A score is not finite; names the text.
        """
        advice = "give a smaller --batch-size, then run the same command again: finished shards are kept"
        with OneDNNLinear() if self.device == "cpu" else nullcontext(), within_memory(advice):
            scores = self.model.predict(
                list(zip(anchors, documents, strict=True)), batch_size=self.settings.batch_size, show_progress_bar=False
            )
        scores = np.asarray(scores, dtype=np.float32)
        if not (finite := np.isfinite(scores)).all():
            raise ModelError(
                "The reranker returned a score that is not finite",
                where=f"text {documents[int(finite.argmin())][:80]!r}",
                fix="try --dtype float32",
            )
        return scores


def _refuse_without_scores(folder: Path, locator: str) -> None:
    """Raise ModelError where sentence-transformers would silently put a head of random weights on the model."""
    native = (folder / "modules.json").is_file()  # sentence-transformers' own format; before 5.0 it named no kind
    path = folder / ("config_sentence_transformers.json" if native else "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        kind = config.get("model_type", "SentenceTransformer") if native else config.get("architectures") or ["?"]
    except (ValueError, OSError, AttributeError) as error:
        raise ModelError(f"{path.name} is not readable", where=f"{path}: {error}") from error
    if kind != "CrossEncoder" and not any(str(name).endswith(SCORING) for name in kind):
        raise ModelError(
            f"The model has no trained scoring head: it is an embedding model ({kind if native else ', '.join(kind)})",
            where=locator,
            fix="give a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2; an embedding model is a --guide",
        )
