"""Timing by turns: these machines are shared, so things are compared within one run, never across two."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = REPOSITORY / "runs" / "bench"
Figures = dict[str, Any]


def by_turns(variants: dict[str, Callable[[int], None]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each variant in each round; every round runs all of them, each with the round's number."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, run in variants.items():
            begun = time.perf_counter()
            run(number)
            spent = time.perf_counter() - begun
            if number >= warmup:
                seconds[name].append(spent)
            say(f"round {number - warmup + 1}: {name} {spent:.2f} s")
    return seconds


def median(values: list[float]) -> float:
    return float(np.median(values))


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and least to greatest."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(slow: list[float], fast: list[float], digits: int = 2) -> str:
    """Median and range of the ratios, round by round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], digits)


def in_own_process(script: str, *words: object) -> Figures:
    """Run a script of this folder alone and read the JSON of its last line: its peak memory is nobody else's."""
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, words)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{script} ended with {done.returncode}; its message is above")
    return json.loads(done.stdout.splitlines()[-1])


def cached(name: str, key: Any, measure: Callable[[], Figures]) -> Figures:
    """A measurement's figures from ``runs/bench``, or measured and written there."""
    path = WORK / f"{name}.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] == json.loads(json.dumps(key)):
            return content["figures"]
    say(f"measuring: {name}")
    figures = measure()
    WORK.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": key, "figures": figures}, indent=1), encoding="utf-8")
    return figures


def machine() -> str:
    """Processor, vector instructions, cores, GPU where there is one, and versions, for the page."""
    import torch  # not for those who time other processes

    kind = f"{_processor()} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores"
    if torch.cuda.is_available():
        kind += f", {torch.cuda.get_device_name()}"
    names = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "polars", "pyarrow")
    return ", ".join([kind, f"Python {platform.python_version()}", *filter(None, map(_version, names))])


def _version(name: str) -> str:
    """Nothing for what a machine that only trains does without."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
