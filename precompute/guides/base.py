"""The interface of a guide (texts of a role in, unit vectors out) and what the kinds of guide share."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...shared.errors import ModelError
from ...shared.guide_index.manifest import refuse_differences
from ...shared.progress import Advance
from ...shared.types import Role

EXCERPT = 80


class Guide(Protocol):
    """What stage 1 needs of a guide.

    Attributes:
        same_for_both_roles: Whether a text has one vector whatever its role.
        runs_in_workers: Whether workers may hold copies of it: such a guide can be pickled. Else the first process
            alone embeds.
    """

    same_for_both_roles: bool
    runs_in_workers: bool

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """All that determines a vector, JSON-ready, with ``dim``; ``name`` informs only."""
        ...

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Look through every text that a build needs, before the first is embedded.

        Raises:
            GistcacheError: The guide cannot embed them all, or they would cost too much.
        """

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """Embed T texts of a role, calling ``advance`` with numbers of texts as they are done.

        Returns:
            (T, dim) float32, unit length, in the order of ``texts``.

        Raises:
            ModelError: A vector is not finite, or of length zero; names the text.
        """
        ...


def unit_vectors(vectors: np.ndarray, texts: list[str], dim: int) -> np.ndarray:
    """Cut the vectors of texts, (T, D), to ``dim`` dimensions and scale them to unit length: (T, dim) float32.

    Raises:
        ModelError: A vector is not finite, or of length zero; names the text.
    """
    norms = np.linalg.norm(vectors[:, :dim].astype(np.float64), axis=1, keepdims=True)
    unusable = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if unusable.size:
        row = int(unusable[0])
        raise ModelError(
            f"The guide returned {'a zero' if norms[row] == 0 else 'a non-finite'} vector",
            where=f"text {excerpt(texts[row])}",
            fix="leave the text out; where this machine computes in half precision, --dtype float32 may do better",
        )
    return (vectors[:, :dim] / norms).astype(np.float32)


def excerpt(text: str) -> str:
    """The beginning of a text, quoted for a message."""
    return f"{text[:EXCERPT]!r}{'...' if len(text) > EXCERPT else ''}"


def output_dim(requested: int | None, full: int) -> int:
    """How many leading dimensions to keep of vectors that have ``full``: all where None are requested.

    Raises:
        ModelError: More are requested than there are.
    """
    if requested and requested > full:
        what = f"The guide has {full} dimensions, {requested} were requested"
        raise ModelError(what, where="--dim", fix=f"give {full} at most")
    return requested or full


def load_in_worker(kind: Callable[..., Guide], arguments: tuple[Any, ...], fingerprint: dict[str, Any]) -> Guide:
    """Make a worker's own copy of a guide, ``kind(*arguments)``, and check its fingerprint.

    Raises:
        ModelError: It is not the first process's guide; names each difference.
    """
    guide = kind(*arguments)
    refuse_differences(
        fingerprint,
        guide.fingerprint(),
        "the first process",
        "A worker's guide is another one",
        where=f"{fingerprint['name']} on {socket.gethostname()}",
        fix="give every machine the same files",
        error=ModelError,
    )
    return guide


class AsModel:
    """A guide in the form in which sentence-transformers' evaluators take a model; vectors are not rounded."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def encode_query(self, texts: list[str], **_: object) -> Tensor:
        """(T, dim) float32."""
        return torch.from_numpy(self._guide.encode(list(texts), "query"))

    def encode_document(self, texts: list[str], **_: object) -> Tensor:
        """(T, dim) float32."""
        return torch.from_numpy(self._guide.encode(list(texts), "document"))
