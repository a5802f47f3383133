"""The device that a model runs on: the best one available, and an error when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import GistcacheError, SettingsError, first_line


def pick_device(device: str) -> str:
    """Resolve ``auto`` to the best available device; return anything else unchanged.

    Raises:
        SettingsError: The device is not available.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without the device
        what, fix = f"Device {device!r} is not available: {first_line(error)}", "give auto for the best one available"
        raise SettingsError(what, where="--device", fix=f"{fix}; `gistcache doctor` lists the devices") from error
    return device


@contextmanager
def within_memory(fix: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into one of our own that says what to do.

    Raises:
        GistcacheError: The device ran out of memory inside the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GistcacheError("The device is out of memory", where=first_line(error), fix=fix) from error
