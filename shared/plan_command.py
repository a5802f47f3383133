"""`gistcache plan`: what an index of a given size will take, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from .errors import SettingsError
from .progress import console
from .scaling import (
    Corpus,
    Shape,
    file_bytes,
    guide_flops,
    parts,
    search_flops,
    step_read_bytes,
    trainer_bytes,
)

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The corpus, the guide and the machine."""

    texts: float
    """Unique texts, anchors and documents together; 1e9 is understood."""
    pairs: float | None = None
    """Training pairs; default: half of the texts."""
    documents: float | None = None
    """How many of the texts are documents; default: half."""
    dim: int = 768
    """Dimensions of the guide."""
    text_bytes: float = 200
    """Mean length of a text in bytes."""
    text_tokens: float = 50
    """Mean length of a text in the guide's tokens."""
    guide_parameters: float = 303e6
    """Weights of the guide outside its embeddings; BERT-large has 303 million, BERT-base 85 million."""
    teraflops: Annotated[float, Parameter(name="--teraflops")] = 100
    """Rate that the guide reaches on one device, in 10^12 operations a second: the device's matrix rate times the
    share of it that is reached, which `docs/BENCHMARKS.md` measures."""
    neighbors: int = 50
    """Closest documents stored for each anchor."""
    part_rows: int = 8_192
    """Rows a part file."""
    batch_size: int = 1_024
    """Pairs a training step."""

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("texts", "dim", "text_bytes", "text_tokens", "guide_parameters", "teraflops", "part_rows"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{getattr(self, name)} is too small", where=f"--{name.replace('_', '-')}")
        if self.documents is not None and not 0 < self.documents < self.texts:
            raise SettingsError("Documents are some of the texts", where="--documents", fix="give fewer than --texts")


def plan(*, settings: PlanSettings) -> dict[str, float]:
    """What an index of a given size will take: bytes, memory, and the guide's work."""
    figures = planned(settings)
    table = Table(title=f"{settings.texts:,.0f} texts, {settings.dim} dimensions", show_header=False)
    for name, value in figures.items():
        plain = f"{value:,.1f}" if name.endswith("hours") else f"{value:,.0f}"
        table.add_row(name, plain if name.endswith(("hours", "part files")) else told(value))
    console.print(table)
    return figures


def planned(settings: PlanSettings) -> dict[str, float]:
    """The figures, by what they are."""
    half = settings.texts / 2
    corpus = Corpus(
        texts=round(settings.texts),
        pairs=round(half if settings.pairs is None else settings.pairs),
        documents=round(half if settings.documents is None else settings.documents),
        text_bytes=settings.text_bytes,
        text_tokens=settings.text_tokens,
    )
    shape = Shape(settings.dim, settings.neighbors, settings.part_rows)
    sizes = file_bytes(corpus, shape)
    rate = settings.teraflops * 1e12 * 3600
    return {
        **{f"index: {name}": size for name, size in sizes.items()},
        "index: all": sum(sizes.values()),
        "index: part files": parts(corpus, shape),
        "stage 1: guide, device hours": guide_flops(corpus, settings.guide_parameters) / rate,
        "stage 1: exact search, device hours": search_flops(corpus, shape) / rate,
        "stage 2: memory for ids": trainer_bytes(corpus),
        "stage 2: read a step, nothing cached": step_read_bytes(settings.batch_size, 0, shape),
    }


def told(count: float) -> str:
    """A number of bytes in the unit that fits."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:,.0f} {UNITS[unit]}" if unit == 0 else f"{count:,.1f} {UNITS[unit]}"
