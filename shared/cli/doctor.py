"""`gistcache doctor`: what is installed here, what it runs on, and what is missing for which extra."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import metadata, packages_distributions, requires, version
from typing import Any

from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from ..errors import GistcacheError
from ..libraries import installed
from .output import CommandResult

NAME = "gistcache"


def doctor() -> CommandResult:
    """Show versions, devices, threads, which FAISS there is, and which extras are installed.

    Exits with 1 where something that every user needs is missing, or does not work.

    Raises:
        GistcacheError: The package is not installed, so that nobody knows what it needs.
    """
    if installed(NAME) is None:
        raise GistcacheError(f"{NAME} runs from its folder and is not installed", fix="pip install . in that folder")
    faults = list(_import_faults())  # loads them
    needed = [each for each in _requirements("") if each.name != "faiss-cpu"]  # or faiss-gpu
    extras = metadata(NAME).get_all("Provides-Extra") or []
    figures: dict[str, Any] = {
        NAME: version(NAME),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {each.name: installed(each.name) for each in needed},
        "devices": _devices(),
        "threads": _threads(),
        "faiss": sorted(set(packages_distributions().get("faiss", []))),
        "extras": {extra: _missing(list(_requirements(extra))) for extra in extras},
    }
    lacking = [f"{each} is missing: pip install '{each}'" for each in _missing(needed)]
    figures["faults"] = [*lacking, *_faiss_faults(figures["faiss"]), *faults]
    return CommandResult(figures, tuple(_shown(figures)), 1 if figures["faults"] else 0)


def _requirements(extra: str) -> Iterator[Requirement]:
    """What an extra adds, those of extras inside it included; without one, what every user needs."""
    for each in map(Requirement, requires(NAME) or []):
        of_extra = each.marker is not None and "extra" in str(each.marker)
        if of_extra != bool(extra) or (each.marker and not each.marker.evaluate({"extra": extra})):
            continue
        if each.name != NAME:
            yield each
        for inner in each.extras if each.name == NAME else ():
            yield from _requirements(inner)


def _missing(requirements: list[Requirement]) -> list[str]:
    """Those that are not installed, or in another version than is asked for."""
    found = [(each, installed(each.name)) for each in requirements]
    return [f"{each.name}{each.specifier}" for each, held in found if held is None or held not in each.specifier]


def _devices() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    named = [f"cuda:{number} {each.name}, {each.total_memory / 1e9:.0f} GB" for number, each in enumerate(gpus)]
    return ["cpu", *named, *(["mps"] if torch.backends.mps.is_available() else [])]


def _threads() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads() if torch else None
    return {"cores": usable, "torch": threads, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}


def _faiss_faults(distributions: list[str]) -> Iterator[str]:
    """Both FAISS packages write the same module, and the one that was installed last is half of each."""
    if not distributions:
        yield "no FAISS: pip install faiss-cpu"
    if len(distributions) > 1:
        names = " ".join(distributions)
        yield f"{names} hold the same module: pip uninstall {names}, then install the one that you want"


def _import_faults() -> Iterator[str]:
    for name in ("torch", "faiss", "polars", "sentence_transformers"):
        try:
            import_module(name)
        except (ImportError, OSError) as error:
            yield f"{name} cannot be loaded: {error}"


def _shown(figures: dict[str, Any]) -> Iterator[Table | Text]:
    table = Table(title=f"{NAME} {figures[NAME]}", show_header=False)
    rows = {
        "python": f"{figures['python']} on {figures['platform']}",
        "libraries": ", ".join(f"{name} {held or 'MISSING'}" for name, held in figures["libraries"].items()),
        "devices": ", ".join(figures["devices"]),
        "threads": ", ".join(f"{name} {count or 'not set'}" for name, count in figures["threads"].items()),
        "FAISS": " and ".join(figures["faiss"]) or "MISSING",
    }
    for extra, missing in figures["extras"].items():
        lacks = f"missing {', '.join(missing)}: pip install '{NAME}[{extra}]'"
        rows[f"extra {extra}"] = lacks if missing else "installed"
    for name, value in rows.items():
        table.add_row(name, Text(value))
    yield table
    yield from (Text(f"fault: {fault}") for fault in figures["faults"])
