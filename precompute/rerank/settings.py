"""Settings of `gistcache rescore`; nothing here loads a library of the stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from ...shared.settings import refuse_below, refuse_url
from ...shared.types import DType


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RescoreSettings:
    """All settings of `gistcache rescore` but the index."""

    reranker: str
    """The cross-encoder: a folder, a hub id, or `package:DISTRIBUTION`."""
    out: Path
    """Folder to write the scores to; unfinished ones there are finished."""
    max_length: int | None = None
    """Tokens after which anchor and document together are cut; default: the model's own limit."""
    dtype: DType = "float32"
    """Number type the reranker computes in."""
    device: str = "auto"
    """Where the reranker runs: auto, cpu, cuda, cuda:1, mps."""
    batch_size: int = 32
    """Anchors with their documents in one forward pass."""
    shard_rows: int = 512
    """Training pairs a shard: what is lost at most when the process is killed."""

    def __post_init__(self) -> None:
        """Check every value."""
        refuse_below(self, 1, "max_length", "batch_size", "shard_rows")
        refuse_url(self.out, "--out")
