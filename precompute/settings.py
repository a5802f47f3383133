"""The settings of stage 1, checked as soon as they are made. Imports no large library, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from ..shared.data.columns import Columns
from ..shared.errors import SettingsError
from ..shared.settings import refuse_below, refuse_idle
from ..shared.types import DType, VectorDType

KEY_VARIABLE = "OPENAI_API_KEY"
# A setting that a kind of guide ignores is refused, so that nobody believes that it took effect.
MODEL_ONLY = ("max_length", "dtype", "batch_tokens")
NOT_FOR = {"api": MODEL_ONLY, "vectors": ("query_prompt", "document_prompt", *MODEL_ONLY)}

# Texts fill at most MOST_SHARDS shards of LEAST_SHARD_ROWS rows; above that, shards grow and the manifest stays small.
LEAST_SHARD_ROWS, MOST_SHARDS = 8_192, 4_096
# Above this many texts, local density is estimated against a sample of this size ...
DENSITY_SAMPLE = 65_536
# ... in which the K-th nearest text has this rank at least: a nearer one estimates density badly (docs/JUDGE.md).
DENSITY_K, LEAST_RANK = 100, 6


def default_shard_rows(texts: int) -> int:
    """A power of two from 8,192 up, so that the texts fill no more than 4,096 shards."""
    rows = LEAST_SHARD_ROWS
    while rows * MOST_SHARDS < texts:
        rows *= 2
    return rows


def default_density_k(texts: int) -> int:
    """Which nearest text defines local density: the 100th; above a million texts, one that the sample resolves."""
    return max(DENSITY_K, -(-LEAST_RANK * texts // DENSITY_SAMPLE))


@Parameter(name="*", group="Embeddings endpoint")
@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """Requests to a guide behind an OpenAI-compatible embeddings endpoint. None of these changes a vector."""

    api_base: str | None = None
    """URL of the endpoint, such as `http://localhost:8080/v1`; default: OPENAI_BASE_URL, else OpenAI's own."""
    api_key_env: str = KEY_VARIABLE
    """Environment variable that holds the key; there is no other way to give one."""
    api_batch: int = 32
    """Texts a request; 32 is what every server takes."""
    api_concurrency: int = 8
    """Requests at a time."""
    api_requests_per_minute: float | None = None
    """Requests a minute at most, repeated ones included; default: no limit of our own."""
    api_retries: int = 8
    """Retries of a request after 408, 409, 429, a server error or a lost connection."""
    api_timeout: float = 120.0
    """Seconds to wait for an answer."""
    api_price: float | None = None
    """Price of a million tokens, for the estimate."""
    api_budget: float | None = None
    """Largest estimate to accept, in the currency of --api-price; above it nothing is sent."""

    def __post_init__(self) -> None:
        """Check every value; raises SettingsError."""
        positive = ("api_batch", "api_concurrency", "api_requests_per_minute", "api_timeout")
        refuse_below(self, 0, *positive, strictly=True)
        refuse_below(self, 0, "api_retries", "api_price", "api_budget")
        if self.api_price is None:
            refuse_idle(self, ("api_budget",), "--api-price")
        parts = urlsplit(self.api_base or "")
        if parts.query or "@" in parts.netloc:  # messages show the URL
            raise SettingsError(
                "The endpoint's URL must not hold a key, a password or a query",
                where="--api-base",
                fix=f"put the key into the environment variable {self.api_key_env}",
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Every setting of `gistcache index` but the input files."""

    guide: str
    """The guide: a folder, a hub id, `package:DISTRIBUTION` (a model inside an installed wheel), `api:MODEL` (an
    OpenAI-compatible embeddings endpoint), or `vectors:PATH` (vectors that exist already)."""
    api: ApiSettings = field(default_factory=ApiSettings)
    """Requests to an endpoint."""
    out: str | Path = "guide-index"
    """Folder or URL (`s3://bucket/index`) to write the index to; an unfinished index there is finished."""
    reuse: str | Path | None = None
    """A finished index of the same guide: its vectors are copied, and only texts that it lacks are embedded."""
    columns: Columns = field(default_factory=Columns)
    """Which columns hold the texts."""
    strict: bool = False
    """Stop at the first row that would be rejected."""
    query_prompt: str | None = None
    """Prompt before every anchor; default: the guide's own prompt named `query`; none for an endpoint."""
    document_prompt: str | None = None
    """Prompt before every positive and negative; default: the guide's own named `document`, `passage` or `corpus`;
    none for an endpoint."""
    max_length: int | None = None
    """Tokens at which the guide truncates a text; default: the guide's own limit."""
    dtype: DType | None = None
    """Number type the guide computes in; default: float32. `--vector-dtype` says how its vectors are stored."""
    vector_dtype: VectorDType = "float16"
    """Number type a guide vector is stored in; int8 takes half the bytes. `gistcache verify` prints what it changes."""
    dim: int | None = None
    """Leading dimensions to keep, for Matryoshka guides; sent to an endpoint too; default: all."""
    device: str = "auto"
    """Where the guide and the searches run: auto, cpu, cuda, cuda:1, mps."""
    batch_tokens: int | None = None
    """Padded tokens a forward pass of the guide; default: 1,024 on a CPU, 65,536 on an accelerator."""
    neighbors: int = 50
    """Closest documents to store for each anchor."""
    density_k: int | None = None
    """Local density is a text's guide score with its K-th nearest other text; default: 100, more above a million
    texts."""
    exact_limit: int = 100_000
    """Documents up to which neighbors are searched exactly; above, with inverted lists tuned to 0.95 recall."""
    shard_rows: int | None = None
    """Rows of a shard, which is the most work that a killed worker loses; default: 8,192, more above 33 million
    texts."""
    document_shard_rows: int = 4_194_304
    """Documents that are searched together: each document shard has a FAISS file of its own."""
    engine: Literal["local", "ray"] = "local"
    """What computes the shards: processes of this machine, or a Ray cluster."""
    num_workers: int | None = None
    """Processes that compute shards; default: one a GPU, or one. They share the cores."""
    ray_address: str | None = None
    """Ray cluster to join, such as `auto` or `ray://host:10001`; default: one is started on this machine."""
    seed: int = 0
    """Seed of every sample that is drawn."""
    eval_pairs: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    """Held-out pairs to evaluate the guide on while it is loaded; the figures go into the manifest."""

    def __post_init__(self) -> None:
        """Check every value; raises SettingsError."""
        counts = ("neighbors", "density_k", "exact_limit", "shard_rows", "document_shard_rows", "num_workers")
        refuse_below(self, 1, *counts, "max_length", "dim", "batch_tokens")
        self._refuse_ignored()
        refuse_below(self, 0, "seed")

    def _refuse_ignored(self) -> None:
        kind, _, name = self.guide.partition(":")
        if kind in NOT_FOR and not name:
            raise SettingsError(
                "The guide has no name", where=f"--guide {self.guide}", fix="give api:MODEL, vectors:PATH"
            )
        refuse_idle(self, NOT_FOR.get(kind, ()), "a model as --guide")
        if kind != "api":
            refuse_idle(self.api, [each.name for each in fields(self.api)], "--guide api:MODEL")
        if self.engine != "ray":
            refuse_idle(self, ("ray_address",), "--engine ray")

    def for_texts(self, texts: int) -> IndexSettings:
        """These settings with the defaults that follow from the number of texts: rows of a shard, and K."""
        shard_rows, density_k = self.shard_rows or default_shard_rows(texts), self.density_k or default_density_k(texts)
        return replace(self, shard_rows=shard_rows, density_k=density_k)

    def recorded(self) -> dict[str, Any]:
        """The settings that shape what is written, JSON-ready."""
        names = ("vector_dtype", "neighbors", "density_k", "exact_limit", "shard_rows", "document_shard_rows", "seed")
        return {name: getattr(self, name) for name in names}
