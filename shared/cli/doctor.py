"""`gistcache doctor`: what is installed here, which devices there are, and what is missing for which extra."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import distributions, metadata, requires
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.table import Table
from rich.text import Text

from .output import CommandResult

NAME = "gistcache"


def doctor() -> CommandResult:
    """Show versions, devices and extras; exits with 1 where something that every user needs is missing or broken."""
    installed = _installed()
    import_faults = list(_import_faults())
    faults = [*_package_faults(installed), *import_faults]
    data: dict[str, Any] = {
        NAME: installed[NAME],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {each.name: installed.get(each.name) for each in _requirements("")},
        "devices": [] if import_faults else _devices(),
        "extras": {extra: _missing(extra, installed) for extra in metadata(NAME).get_all("Provides-Extra") or []},
        "faults": faults,
    }
    table = Table(title=f"{NAME} {data[NAME]}", show_header=False)
    table.add_row("python", f"{data['python']} on {data['platform']}")
    table.add_row(
        "libraries", ", ".join(f"{name} {version or 'MISSING'}" for name, version in data["libraries"].items())
    )
    table.add_row("devices", ", ".join(data["devices"]))
    for extra, missing in data["extras"].items():
        advice = f"missing {', '.join(missing)}: pip install '{NAME}[{extra}]'"
        table.add_row(f"extra {extra}", Text(advice if missing else "installed"))
    return CommandResult(data, (table, *(Text(f"fault: {fault}") for fault in faults)), 1 if faults else 0)


def _installed() -> dict[str, str]:
    """Version by name of everything that pip has installed."""
    return {canonicalize_name(each.name): each.version for each in distributions()}


def _requirements(extra: str) -> list[Requirement]:
    """What an extra adds; without one, what every user needs."""
    every = map(Requirement, requires(NAME) or [])
    return [each for each in every if (each.marker.evaluate({"extra": extra}) if each.marker else not extra)]


def _missing(extra: str, installed: Mapping[str, str]) -> list[str]:
    """Requirements that are not installed, or in a version that does not do."""
    return [
        f"{each.name}{each.specifier}"
        for each in _requirements(extra)
        if each.name not in installed or installed[each.name] not in each.specifier
    ]


def _package_faults(installed: Mapping[str, str]) -> Iterator[str]:
    faiss = sorted(name for name in installed if name.startswith("faiss-"))
    if len(faiss) > 1:
        names = " ".join(faiss)
        yield f"{names} contain the same module: pip uninstall {names}, then install the one that you want"
    for each in _missing("", installed):
        if not (faiss and each.startswith("faiss-")):  # any build of FAISS does
            yield f"{each} is missing: pip install '{each}'"


def _import_faults() -> Iterator[str]:
    for name in ("torch", "faiss", "polars", "sentence_transformers"):
        try:
            import_module(name)
        except (ImportError, OSError) as error:
            yield f"{name} cannot be imported: {error}"


def _devices() -> list[str]:
    import torch

    gpus = [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
