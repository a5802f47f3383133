"""The settings of stage 1: what the user can choose, checked at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..shared.errors import SettingsError
from ..shared.models import DType
from ..shared.pairs import Columns
from ..shared.rounding import VectorDType
from ..shared.scaling import default_part_rows
from .guides import GuideSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Everything `gistcache index` can be told besides the input files."""

    guide: str
    """The guide: a folder, a hub id, or `package:DISTRIBUTION` (a model inside an installed wheel)."""
    out: str | Path = "guide-index"
    """Folder or URL (`s3://bucket/index`) to write the index to; an unfinished index there is finished."""
    reuse: str | Path | None = None
    """A finished index of the same guide: texts that it holds are not embedded again."""
    columns: Columns = field(default_factory=Columns)
    """Which columns hold the texts."""
    strict: bool = False
    """Stop at the first row that would be rejected."""
    query_prompt: str | None = None
    """Put before every anchor; default: the guide's own prompt named `query`."""
    document_prompt: str | None = None
    """Put before every positive and negative; default: the guide's own named `document`, `passage` or `corpus`."""
    max_length: int | None = None
    """Tokens after which the guide cuts a text; default: the guide's own limit."""
    dtype: DType = "float32"
    """Number type the guide computes in; `--vector-dtype` says how its vectors are stored."""
    vector_dtype: VectorDType = "float16"
    """Number type a guide vector is stored in; int8 takes half the bytes. `gistcache verify` tells what it changes."""
    dim: int | None = None
    """Leading dimensions to keep, for Matryoshka guides; default: all."""
    device: str = "auto"
    """Where the guide runs: auto, cpu, cuda, cuda:1, mps."""
    batch_tokens: int | None = None
    """Padded tokens a forward pass of the guide; default: 1,024 on a CPU, 65,536 on an accelerator."""
    neighbors: int = 50
    """Closest documents to store for each anchor."""
    scale_k: int = 100
    """A text's scale is its guide score with its K-th nearest other text; this is K."""
    clusters: int | None = None
    """Clusters of anchors; default: the square root of their number."""
    exact_limit: int = 100_000
    """Up to this many documents neighbours are searched exactly; above, with inverted lists tuned to 0.95 recall."""
    part_rows: int | None = None
    """Rows a part file: what is lost at most when a worker is killed; default: 8,192, more above 33 million texts."""
    slice_rows: int = 4_194_304
    """Documents that are searched together: each slice has a FAISS file of its own."""
    engine: Literal["local", "ray"] = "local"
    """What computes the parts: processes of this machine, or a Ray cluster."""
    num_workers: int | None = None
    """Processes that compute parts; default: one a GPU, or one. They share the cores."""
    ray_address: str | None = None
    """Ray cluster to join, such as `auto` or `ray://host:10001`; default: one is started on this machine."""
    seed: int = 0
    """Seed of clustering and sampling."""
    eval_pairs: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    """Held-out pairs to evaluate the guide on while it is loaded; the figures go into the manifest."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingsError: A number is out of its range.
        """
        for name in (
            "neighbors",
            "scale_k",
            "exact_limit",
            "part_rows",
            "slice_rows",
            "num_workers",
            "max_length",
            "dim",
            "batch_tokens",
            "clusters",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{value} is too small", where=f"--{name.replace('_', '-')}", fix="give 1 or more")
        if self.ray_address and self.engine != "ray":
            raise SettingsError("Another engine knows no Ray", where="--ray-address", fix="give --engine ray too")
        if self.seed < 0:
            raise SettingsError(f"{self.seed} is no seed", where="--seed", fix="give 0 or more")

    @property
    def guide_settings(self) -> GuideSettings:
        """The part that determines what a vector is."""
        return GuideSettings(self.guide, self.query_prompt, self.document_prompt, self.max_length, self.dtype, self.dim)

    def for_texts(self, texts: int) -> IndexSettings:
        """With what follows from the size of the corpus: parts so large that the manifest stays small."""
        return replace(self, part_rows=self.part_rows or default_part_rows(texts))

    def recorded(self) -> dict[str, Any]:
        """The part that determines the rest of the index, JSON-ready."""
        names = ("vector_dtype", "neighbors", "scale_k", "clusters", "exact_limit", "part_rows", "slice_rows", "seed")
        return {name: getattr(self, name) for name in names}
