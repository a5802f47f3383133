"""The folder of a training run: what stands where in it, and which folders are none."""

from __future__ import annotations

from pathlib import Path

from ...shared.errors import SettingsError, StaleIndexError
from ...shared.storage.lock import was_held

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
SWEEP_LOG = "train.log"


def refuse_foreign(out: Path) -> None:
    """Refuse a folder with other files than those of a run, which would be written among them, or over them.

    Raises:
        SettingsError: There is a file of this name.
        StaleIndexError: The folder is not empty, and no run was begun or sweep logged in it.
    """
    if out.is_file():
        raise SettingsError("There is a file of this name", where=f"--out {out}", fix="give a folder")
    if not out.is_dir() or (out / METRICS).is_file() or was_held(out / CHECKPOINTS):
        return
    if found := sorted({path.name for path in out.iterdir()} - {SWEEP_LOG}):
        raise StaleIndexError(
            f"The folder is not empty and holds no run: {', '.join(found[:3])}",
            where=str(out),
            fix="give another --out",
        )
