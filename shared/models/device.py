"""The device that a model runs on: which one is at hand, and what to do when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import GistcacheError, SettingsError, first_line


def pick_device(device: str) -> str:
    """Resolve ``auto`` to the best device at hand; return anything else as it is.

    Raises:
        SettingsError: The device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without the device
        raise SettingsError(
            f"Device {device!r} is not available: {first_line(error)}",
            where="--device",
            fix="give auto for the best at hand; `gistcache doctor` lists the devices",
        ) from error
    return device


@contextmanager
def within_memory(fix: str) -> Iterator[None]:
    """Turn a device's running out of memory into an error that says what to do about it.

    Raises:
        GistcacheError: It ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GistcacheError("The device is out of memory", where=first_line(error), fix=fix) from error
