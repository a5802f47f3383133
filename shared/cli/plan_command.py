"""`gistcache plan`: what an index of a given size will take, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from rich.filesize import decimal
from rich.table import Table

from .. import scaling
from ..errors import SettingsError, refuse_below
from ..types import VectorDType
from .output import CommandResult

COUNTS = ("hours", "part files", "rows a part", "slices of documents")
ASSUMED = ("guide_parameters", "text_tokens", "teraflops", "search_efficiency", "probes")  # by device hours
TEXT_COPIES, IDS_A_TEXT = 3, 305  # what reading holds of each text (see docs/SCALING.md)


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
    vector_dtype: VectorDType = "float16"
    """Number type a guide vector is stored in."""
    text_bytes: float = 200
    """Mean length of a text in bytes."""
    text_tokens: float = 50
    """Mean length of a text in the guide's tokens."""
    guide_parameters: float = 303e6
    """Weights of the guide outside its embeddings; BERT-large has 303 million, BERT-base 85 million."""
    teraflops: Annotated[float, Parameter(name="--teraflops")] = 100
    """Rate that the guide reaches on one device, in 10^12 operations a second: the device's matrix rate times the
    share of it that is reached, which `docs/BENCHMARKS.md` measures."""
    neighbors: int = scaling.NEIGHBORS
    """Closest documents stored for each anchor."""
    shard_rows: int | None = None
    """Rows a part file; default: as `gistcache index` chooses."""
    document_shard_rows: int = scaling.SLICE_ROWS
    """Documents that are searched together."""
    probes: int = 64
    """Inverted lists that a search looks into, in each slice; `gistcache index` measures how many it takes."""
    search_efficiency: float = 0.05
    """Share of --teraflops that a search of inverted lists reaches: it is bound by memory."""
    negatives: int = 0
    """Negatives a pair."""
    batch_size: int = 1_024
    """Pairs a training step."""

    def __post_init__(self) -> None:
        """Check every value."""
        sizes = ("text_bytes", "text_tokens", "guide_parameters", "teraflops", "search_efficiency")
        refuse_below(self, 0, *sizes, strictly=True)
        refuse_below(self, 1, "dim", "shard_rows", "document_shard_rows", "neighbors", "probes", "batch_size")
        refuse_below(self, 0, "negatives")
        refuse_below(self, 2, "texts")
        refuse_below(self, 1, "pairs", "documents")
        if self.documents is not None and self.documents >= self.texts:
            raise SettingsError("Documents are some of the texts", where="--documents", fix="give fewer than --texts")


def plan(*, settings: PlanSettings) -> CommandResult:
    """What an index of a given size will take: bytes, memory, and the guide's work."""
    figures = planned(settings)
    table = Table(title=f"{settings.texts:,.0f} texts, {settings.dim} dimensions", show_header=False)
    for name, value in figures.items():
        plain = f"{value:,.1f}" if name.endswith("hours") else f"{value:,.0f}"
        table.add_row(name, plain if name.endswith(COUNTS) else decimal(round(value)))
    assumed = {name: getattr(settings, name) for name in ASSUMED}
    told = (
        f"Device hours assume a guide of {settings.guide_parameters / 1e6:g} million weights (--guide-parameters), "
        f"texts of {settings.text_tokens:g} tokens (--text-tokens), and {settings.teraflops:g} teraflops reached on "
        f"the device (--teraflops), {settings.search_efficiency:.0%} of them by inverted lists (--search-efficiency)."
    )
    return CommandResult({**figures, "assumed": assumed}, (table, told))


def planned(settings: PlanSettings) -> dict[str, float]:
    """The figures, by what they are."""
    half = settings.texts / 2
    corpus = scaling.CorpusSize(
        texts=round(settings.texts),
        pairs=round(half if settings.pairs is None else settings.pairs),
        documents=round(half if settings.documents is None else settings.documents),
        text_bytes=settings.text_bytes,
        text_tokens=settings.text_tokens,
        negatives=round(settings.negatives * (half if settings.pairs is None else settings.pairs)),
    )
    value_bytes = np.dtype(settings.vector_dtype).itemsize
    shape = scaling.Shape(
        settings.dim, value_bytes, settings.neighbors, settings.shard_rows, settings.document_shard_rows
    )
    sizes, slices = scaling.file_bytes(corpus, shape), scaling.slice_bytes(corpus.documents, shape)
    rate = settings.teraflops * 1e12 * 3600
    probed = scaling.probed_flops(corpus, shape, settings.probes) / (rate * settings.search_efficiency)
    return {
        **{f"index: {name}": size for name, size in sizes.items()},
        "index: all": sum(sizes.values()),
        "index: part files": scaling.parts(corpus, shape),
        "index: rows a part": shape.rows_of_parts(corpus.texts),
        "index: slices of documents": len(slices),
        "stage 1: guide, device hours": scaling.guide_flops(corpus, settings.guide_parameters) / rate,
        "stage 1: exact search, device hours": scaling.search_flops(corpus, shape) / rate,
        "stage 1: inverted lists, device hours": probed,
        "stage 1: memory a slice": max(slices, default=0),
        "stage 1: passed from slice to slice": scaling.found_bytes(corpus, shape),
        "stage 1: memory of the first process": corpus.texts * (corpus.text_bytes * TEXT_COPIES + IDS_A_TEXT),
        "stage 2: memory of the plan": scaling.trainer_bytes(corpus),
        "stage 2: read a step, nothing cached": scaling.step_read_bytes(settings.batch_size, settings.negatives, shape),
    }
