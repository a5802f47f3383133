"""The guide that the settings name: a local model, an embeddings endpoint, or stored vectors."""

from __future__ import annotations

from ...shared.errors import SettingsError
from ..output.lifecycle import has_manifest, read_manifest
from ..output.store import Store
from ..settings import IndexSettings
from .base import Guide
from .local_model import ModelGuide
from .response_cache import Answers, answers_in
from .stored_vectors import VectorsGuide


def guide_of(settings: IndexSettings, store: Store) -> Guide:
    """Make the guide of an index that is built in ``store``; a prefix of its name selects the kind.

    Raises:
        GistcacheError: It is not there, or not usable; see each kind.
    """
    kind, _, name = settings.guide.partition(":")
    if kind == "vectors":
        return VectorsGuide(name, settings.dim, store.layout.building)
    if kind != "api":
        return ModelGuide(settings)
    try:
        from .embeddings_api import ApiGuide
    except ImportError as error:  # an extra
        what = f"The client for embeddings endpoints is not installed ({error})"
        raise SettingsError(what, where=f"--guide {settings.guide}", fix="pip install 'gistcache[api]'") from error
    return ApiGuide(settings, Answers(store, answers_in(settings.reuse)), _dim_of_finished(name, store))


def _dim_of_finished(model: str, store: Store) -> int | None:
    """Full dimensions of an endpoint's model by a finished index of it, which is thus confirmed without a request."""
    guide = read_manifest(store).request.guide if has_manifest(store) else {}
    return guide["dim"] if guide.get("api") == model and guide.get("dimensions") is None else None
