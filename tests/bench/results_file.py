"""Figures that a measurement keeps: one JSON line each, found again by what made them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from interleaved import machine, say

Figures = dict[str, Any]


class Results:
    """Figures by what made them; a line cut short by a crash is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> Iterator[tuple[Figures, Any]]:
        """What made each figure, and the figures."""
        for content in self._contents():
            yield content["made by"], content["figures"]

    def machines(self, kind: Callable[[Figures], str]) -> Counter[tuple[str, str]]:
        """How many figures of each kind each machine has measured; ``kind`` tells it from what made a figure."""
        return Counter((kind(content["made by"]), content["machine"]) for content in self._contents())

    def _contents(self) -> Iterator[dict[str, Any]]:
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def get_or_measure(self, made_by: Figures, measure: Callable[[], Any]) -> Any:
        """The figures of a setting, measured where they are missing; another process may append meanwhile."""
        existing = {key_of(other): figures for other, figures in self.lines}
        if (key := key_of(made_by)) in existing:
            return existing[key]
        figures = measure()
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"made by": made_by, "figures": figures, "machine": machine()}))
        say(f"{json.dumps(made_by)[:160]}: {json.dumps(figures)[:200]}")
        return figures


def key_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
