"""The output folder of a training run: its files, the checks that it is this run's, and how models are saved in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from ...shared.errors import GistcacheError, SettingsError, StaleIndexError, first_line
from ...shared.guide_index.manifest import refuse_differences
from ...shared.storage.files import PARTIAL_SUFFIX, atomic_write
from ...shared.storage.integrity import parse_object
from ...shared.storage.lock import was_held

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
SWEEP_LOG = "train.log"


def refuse_foreign(out: Path) -> None:
    """Raise SettingsError or StaleIndexError where ``out`` is a file, or holds files but no run has begun in it."""
    if out.is_file():
        raise SettingsError("There is a file of this name", where=f"--out {out}", fix="give a folder")
    if not out.is_dir() or (out / METRICS).is_file() or was_held(out / CHECKPOINTS):
        return
    if foreign := sorted({path.name for path in out.iterdir()} - {SWEEP_LOG}):
        what = f"The folder is not empty and holds no run: {', '.join(foreign[:3])}"
        raise StaleIndexError(what, where=str(out), fix="give another --out")


def refuse_other_run(folder: Path, stored: dict[str, Any], identity: dict[str, Any], holder: str) -> None:
    """Raise StaleIndexError naming each way in which a stored run's identity differs from this run's."""
    what, fix = "The folder holds a run with other settings", "give the settings it was begun with, or another --out"
    refuse_differences(stored, identity, holder, what, where=str(folder), fix=fix)


def read_finished(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read the metrics of this very run, where it has ended before; None where it has not.

    Raises:
        StaleIndexError: The folder holds another run's model; names each difference.
    """
    if not (out / METRICS).is_file():
        return None
    metrics = parse_object(out / METRICS, "trained model's metrics.json")
    refuse_other_run(out, dict(metrics.get("run") or {}), identity, "trained model")
    return metrics


@contextmanager
def saving(partial: Path) -> Iterator[None]:
    """Delete what was saved in ``partial`` if saving fails, and raise GistcacheError with the room there is."""
    try:
        yield
    except Exception as error:  # torch, safetensors and tokenizers have no error class in common
        shutil.rmtree(partial, ignore_errors=True)
        raise GistcacheError(
            f"{partial.name} cannot be saved: {first_line(error)}",
            where=f"{partial.parent}, {shutil.disk_usage(partial.parent).free / 1e6:,.0f} MB free",
            fix="if the disk is full, make room; then run the same command with --resume",
        ) from error


def save_model(student: SentenceTransformer, out: Path) -> int:
    """Save the model in a folder of its own, then move it into ``out`` file by file; returns the bytes of its weights.

    Raises:
        GistcacheError: It cannot be saved.
    """
    partial = out / f"model{PARTIAL_SUFFIX}"
    shutil.rmtree(partial, ignore_errors=True)
    with saving(partial):
        student.save_pretrained(str(partial), create_model_card=False)
        size = sum(path.stat().st_size for path in partial.rglob("*.safetensors"))
        mode = (partial / "modules.json").stat().st_mode  # safetensors makes files that nobody else may read
        for path in sorted(path for path in partial.rglob("*") if path.is_file()):
            path.chmod(mode)
            with atomic_write(out / path.relative_to(partial)) as target:
                path.rename(target)
    shutil.rmtree(partial)
    return size
