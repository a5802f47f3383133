"""The settings of stage 1: what the user can choose, checked at once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from ..shared.data.columns import Columns
from ..shared.errors import SettingsError, flag_of, refuse_below
from ..shared.scaling import EXACT_LIMIT, NEIGHBORS, SLICE_ROWS, default_shard_rows
from ..shared.types import DType, VectorDType
from .search.density import default_density_k

KEY_VARIABLE = "OPENAI_API_KEY"
# What means nothing to a kind of guide is refused, so that nobody believes that it took effect.
MODEL_ONLY = ("max_length", "dtype", "batch_tokens")
NOT_FOR = {"api": MODEL_ONLY, "vectors": ("query_prompt", "document_prompt", *MODEL_ONLY)}


@Parameter(name="*", group="Embeddings endpoint")
@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """How a guide behind an OpenAI-compatible embeddings endpoint is asked. None of it changes a vector."""

    api_base: str | None = None
    """URL of the endpoint, such as `http://localhost:8080/v1`; default: OPENAI_BASE_URL, else OpenAI's own."""
    api_key_env: str = KEY_VARIABLE
    """Environment variable that holds the key; there is no other way to give one."""
    api_batch: int = 32
    """Texts a request; 32 is what every server takes."""
    api_concurrency: int = 8
    """Requests at a time, in each process."""
    api_requests_per_minute: float | None = None
    """Requests that each process sends in a minute at most, repeated ones included; default: no limit of our own."""
    api_retries: int = 8
    """Times that a request is sent again after 408, 409, 429, a server's error or a lost connection."""
    api_timeout: float = 120.0
    """Seconds after which an answer is given up."""
    api_price: float | None = None
    """Price of a million tokens, for the estimate."""
    api_budget: float | None = None
    """Most that the estimate may come to, in the currency of --api-price; above it nothing is sent."""

    def __post_init__(self) -> None:
        """Check every value; raises SettingsError."""
        positive = ("api_batch", "api_concurrency", "api_requests_per_minute", "api_timeout")
        refuse_below(self, 0, *positive, strictly=True)
        refuse_below(self, 0, "api_retries", "api_price", "api_budget")
        if self.api_budget is not None and self.api_price is None:
            raise SettingsError("A budget needs a price", where="--api-budget", fix="give --api-price too")
        parts = urlsplit(self.api_base or "")
        if parts.query or "@" in parts.netloc:  # it would be shown in messages
            raise SettingsError(
                "The endpoint's URL must not hold a key, a password or a query",
                where="--api-base",
                fix=f"put the key into the environment variable {self.api_key_env}",
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Everything `gistcache index` can be told besides the input files."""

    guide: str
    """The guide: a folder, a hub id, `package:DISTRIBUTION` (a model inside an installed wheel), `api:MODEL` (an
    OpenAI-compatible embeddings endpoint), or `vectors:PATH` (vectors that exist already)."""
    api: ApiSettings = field(default_factory=ApiSettings)
    """How an endpoint is asked."""
    out: str | Path = "guide-index"
    """Folder or URL (`s3://bucket/index`) to write the index to; an unfinished index there is finished."""
    reuse: str | Path | None = None
    """A finished index of the same guide: texts that it holds are not embedded again."""
    columns: Columns = field(default_factory=Columns)
    """Which columns hold the texts."""
    strict: bool = False
    """Stop at the first row that would be rejected."""
    query_prompt: str | None = None
    """Put before every anchor; default: the guide's own prompt named `query`; none for an endpoint."""
    document_prompt: str | None = None
    """Put before every positive and negative; default: the guide's own named `document`, `passage` or `corpus`; none
    for an endpoint."""
    max_length: int | None = None
    """Tokens after which the guide cuts a text; default: the guide's own limit."""
    dtype: DType | None = None
    """Number type the guide computes in; default: float32. `--vector-dtype` says how its vectors are stored."""
    vector_dtype: VectorDType = "float16"
    """Number type a guide vector is stored in; int8 takes half the bytes. `gistcache verify` tells what it changes."""
    dim: int | None = None
    """Leading dimensions to keep, for Matryoshka guides; an endpoint is asked for so many; default: all."""
    device: str = "auto"
    """Where the guide and the searches run: auto, cpu, cuda, cuda:1, mps."""
    batch_tokens: int | None = None
    """Padded tokens a forward pass of the guide; default: 1,024 on a CPU, 65,536 on an accelerator."""
    neighbors: int = NEIGHBORS
    """Closest documents to store for each anchor."""
    density_k: int | None = None
    """A text's scale is its guide score with its K-th nearest other text; default: 100, more above a million texts."""
    clusters: int | None = None
    """Clusters of anchors; default: the square root of their number."""
    exact_limit: int = EXACT_LIMIT
    """Documents up to which neighbours are searched exactly; above, with inverted lists tuned to 0.95 recall."""
    shard_rows: int | None = None
    """Rows a part file: what is lost at most when a worker is killed; default: 8,192, more above 33 million texts."""
    document_shard_rows: int = SLICE_ROWS
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
        counts = ("neighbors", "density_k", "exact_limit", "shard_rows", "document_shard_rows", "num_workers")
        refuse_below(self, 1, *counts, "max_length", "dim", "batch_tokens", "clusters")
        self._refuse_without_meaning()
        if self.ray_address and self.engine != "ray":
            raise SettingsError("Another engine knows no Ray", where="--ray-address", fix="give --engine ray too")
        refuse_below(self, 0, "seed")

    def _refuse_without_meaning(self) -> None:
        kind, _, name = self.guide.partition(":")
        if kind in NOT_FOR and not name:
            raise SettingsError(
                "The guide has no name", where=f"--guide {self.guide}", fix="give api:MODEL, vectors:PATH"
            )
        for name in NOT_FOR.get(kind, ()):
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"A guide {kind}:... does not take this setting",
                    where=flag_of(name),
                    fix="leave it out; how its texts are read is settled where the vectors are made",
                )
        if kind != "api" and self.api != ApiSettings():
            given = next(each.name for each in fields(self.api) if getattr(self.api, each.name) != each.default)
            raise SettingsError(
                "Only a guide api:... asks an endpoint", where=flag_of(given), fix="leave it out, or give such a guide"
            )

    def for_texts(self, texts: int) -> IndexSettings:
        """With what follows from the size of the corpus: parts so large that the manifest stays small, and K."""
        shard_rows, density_k = self.shard_rows or default_shard_rows(texts), self.density_k or default_density_k(texts)
        return replace(self, shard_rows=shard_rows, density_k=density_k)

    def recorded(self) -> dict[str, Any]:
        """The part that determines the rest of the index, JSON-ready."""
        names = (
            "vector_dtype",
            "neighbors",
            "density_k",
            "clusters",
            "exact_limit",
            "shard_rows",
            "document_shard_rows",
            "seed",
        )
        return {name: getattr(self, name) for name in names}
