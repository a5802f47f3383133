"""The guide behind one small interface: texts of a role in, unit vectors out. Which kind it is, its name says."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...shared.errors import ModelError, SettingsError
from ...shared.guide_index.manifest import refuse_differences
from ...shared.progress import Advance
from ...shared.types import Role
from ..output.lifecycle import has_manifest, read_manifest
from .response_cache import Answers, answers_in

if TYPE_CHECKING:
    from ..output.store import Store
    from ..settings import IndexSettings


class Guide(Protocol):
    """What stage 1 asks of a guide. Can be pickled: a worker elsewhere makes its own and sees that it is the same."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        ...

    @property
    def same_for_both_roles(self) -> bool:
        """Whether a text has one vector whatever its role."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """All that determines a vector, JSON-ready, with ``dim``; ``name`` informs only."""
        ...

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Hear of every text that will be asked for, before the first is.

        Raises:
            GistcacheError: The guide can see that it will not do.
        """
        ...

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """Embed texts.

        Args:
            texts: T texts.
            role: Which prompt, and which route of an asymmetric model.
            advance: Called with numbers of texts as they are done.

        Returns:
            (T, dim) float32, unit length, in the order of ``texts``.

        Raises:
            ModelError: A vector is not finite, or of length zero; names the text.
        """
        ...


def guide_of(settings: IndexSettings, place: Store) -> Guide:
    """The guide that the settings name.

    Raises:
        GistcacheError: It is not there, or not usable; see each kind.
    """
    kind, _, name = settings.guide.partition(":")
    if kind == "api":
        try:
            from .embeddings_api import ApiGuide  # an extra
        except ImportError as error:
            raise SettingsError(
                f"The client for embeddings endpoints is not installed ({error})",
                where=f"--guide {settings.guide}",
                fix="pip install 'gistcache[api]'",
            ) from error
        prompts: dict[Role, str] = {"query": settings.query_prompt or "", "document": settings.document_prompt or ""}
        answers, dim = Answers(place, answers_in(settings.reuse)), settings.dim or _dim_held(name, place)
        return ApiGuide(name, prompts, settings.dim, settings.api, answers, dim)
    if kind == "vectors":
        from .stored_vectors import VectorsGuide

        return VectorsGuide(name, settings.dim, place.layout.building)
    from .local_model import ModelGuide

    return ModelGuide(settings)


def _dim_held(model: str, place: Store) -> int | None:
    """How many dimensions an endpoint's model has by a finished index of it: to confirm that one, nothing is sent."""
    held = read_manifest(place).request.guide if has_manifest(place) else {}
    return held["dim"] if held.get("api") == model and held.get("dimensions") is None else None


def unit_vectors(vectors: np.ndarray, texts: list[str], dim: int) -> np.ndarray:
    """Cut vectors to their first dimensions and scale them to unit length.

    Args:
        vectors: (T, D) of any float dtype.
        texts: The T texts, for the message.
        dim: How many dimensions to keep.

    Returns:
        (T, dim) float32.

    Raises:
        ModelError: A vector is not finite, or of length zero; names the text.
    """
    vectors = vectors[:, :dim]
    norms = lengths(vectors)
    bad = np.flatnonzero(~usable(norms))
    if bad.size:
        raise ModelError(
            f"The guide returned {'a zero' if norms[bad[0]] == 0 else 'a non-finite'} vector",
            where=f"text {shown(texts[int(bad[0])])}",
            fix="leave the text out; where this machine computes in half precision, --dtype float32 may do better",
        )
    return (vectors / norms[:, None]).astype(np.float32)


def lengths(vectors: np.ndarray) -> np.ndarray:
    """(T, D) -> (T,) float64; of a vector that is not finite, infinite or no number."""
    return np.linalg.norm(vectors.astype(np.float64), axis=1)


def usable(norms: np.ndarray) -> np.ndarray:
    """Whether a vector of that length can be brought to length one."""
    return np.isfinite(norms) & (norms > 0)


def shown(text: str) -> str:
    """A text as messages show it."""
    return f"{text[:80]!r}{'...' if len(text) > 80 else ''}"


def kept_dimensions(asked: int | None, full: int) -> int:
    """How many leading dimensions are kept of vectors that have ``full``: those asked for, by default all.

    Raises:
        ModelError: More were asked for than there are.
    """
    if asked is not None and asked > full:
        raise ModelError(
            f"The guide has {full} dimensions, {asked} were asked for", where="--dim", fix=f"ask for {full} at most"
        )
    return asked or full


def same_guide(kind: Callable[..., Guide], made_of: tuple[Any, ...], fingerprint: dict[str, Any]) -> Guide:
    """A worker's own guide.

    Raises:
        ModelError: It is not the one that the first process has; names each difference.
    """
    guide = kind(*made_of)
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
    """A guide as sentence-transformers' evaluators ask for a model; they see what an index stores, before rounding."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def encode_query(self, texts: list[str], **_: object) -> Tensor:
        """(T, dim) float32."""
        return torch.from_numpy(self._guide.encode(list(texts), "query"))

    def encode_document(self, texts: list[str], **_: object) -> Tensor:
        """(T, dim) float32."""
        return torch.from_numpy(self._guide.encode(list(texts), "document"))
