"""`gistcache doctor`: what is installed here, which devices there are, and what is missing for which extra."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires, version
from typing import Any

from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from ..errors import GistcacheError
from .output import CommandResult

NAME = "gistcache"


def doctor() -> CommandResult:
    """Show versions, devices, threads, which FAISS there is, and which extras are installed.

    Exits with 1 where something that every user needs is missing, or does not work.

    Raises:
        GistcacheError: The package is not installed, so that its requirements are unknown.
    """
    if _version(NAME) is None:
        raise GistcacheError(f"{NAME} runs from its folder and is not installed", fix="pip install . in that folder")
    import_faults = list(_import_faults())  # imports torch, which the devices need
    required = [each for each in _requirements("") if each.name != "faiss-cpu"]  # or faiss-gpu
    faiss = sorted(set(packages_distributions().get("faiss", [])))
    missing = [f"{each} is missing: pip install '{each}'" for each in _missing(required)]
    data: dict[str, Any] = {
        NAME: _version(NAME),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {each.name: _version(each.name) for each in required},
        "devices": _devices(),
        "threads": _threads(),
        "faiss": faiss,
        "extras": {extra: _missing(_requirements(extra)) for extra in metadata(NAME).get_all("Provides-Extra") or []},
        "faults": [*missing, *_faiss_faults(faiss), *import_faults],
    }
    faults = [Text(f"fault: {fault}") for fault in data["faults"]]
    return CommandResult(data, (_table(data), *faults), 1 if faults else 0)


def _version(distribution: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


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


def _missing(requirements: Iterable[Requirement]) -> list[str]:
    """Requirements that are not installed, or in a version that does not do."""
    return [
        f"{each.name}{each.specifier}"
        for each in requirements
        if (existing := _version(each.name)) is None or existing not in each.specifier
    ]


def _devices() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    names = [f"cuda:{number} {gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for number, gpu in enumerate(gpus)]
    return ["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]


def _threads() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads() if torch else None
    return {"cores": cores, "torch": threads, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}


def _faiss_faults(distributions: list[str]) -> Iterator[str]:
    """Both FAISS packages write the same module, and the one installed last overwrites half of the other."""
    if not distributions:
        yield "no FAISS: pip install faiss-cpu"
    if len(distributions) > 1:
        names = " ".join(distributions)
        yield f"{names} contain the same module: pip uninstall {names}, then install the one that you want"


def _import_faults() -> Iterator[str]:
    for name in ("torch", "faiss", "polars", "sentence_transformers"):
        try:
            import_module(name)
        except (ImportError, OSError) as error:
            yield f"{name} cannot be imported: {error}"


def _table(data: dict[str, Any]) -> Table:
    table = Table(title=f"{NAME} {data[NAME]}", show_header=False)
    rows = {
        "python": f"{data['python']} on {data['platform']}",
        "libraries": ", ".join(f"{name} {existing or 'MISSING'}" for name, existing in data["libraries"].items()),
        "devices": ", ".join(data["devices"]),
        "threads": ", ".join(f"{name} {count or 'not set'}" for name, count in data["threads"].items()),
        "FAISS": " and ".join(data["faiss"]) or "MISSING",
    }
    for extra, missing in data["extras"].items():
        advice = f"missing {', '.join(missing)}: pip install '{NAME}[{extra}]'"
        rows[f"extra {extra}"] = advice if missing else "installed"
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table
