"""Stage 1, step by step: files -> pairs -> texts -> vectors -> local density, FAISS files, scores -> manifest."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from importlib.metadata import distributions
from os import PathLike
from typing import Any

from ..shared.data.pairs import read_pairs
from ..shared.data.readers import Inputs
from ..shared.evaluation.retrieval import RetrievalSet
from ..shared.guide_index.guide_index import GuideIndex
from ..shared.guide_index.manifest import Manifest, Request
from ..shared.guide_index.memory_map import MappedVectors
from ..shared.models.locate import find_model
from ..shared.progress import console
from ..shared.settings import with_fields
from ..shared.storage.files import write_json
from ..shared.storage.remote import Remote
from ..shared.timing import Timings, peak_memory_bytes
from .corpus import CORPUS_KINDS, Corpus, read_corpus
from .embed.encode import embed_corpus, expected_texts
from .embed.reuse import OldVectors, open_old_vectors
from .guides.base import AsModel, Guide
from .guides.choose import guide_of
from .output.lifecycle import finish, finished, has_manifest, refuse_foreign, unfinished
from .output.shards import Shards
from .output.store import Store
from .run.local import engine_of
from .run.ray import load_ray
from .search.density import measure_density
from .search.faiss_index import build_faiss_files
from .search.neighbors import GuideVectors, score_pairs
from .settings import NOT_FOR, IndexSettings

LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "pyarrow", "polars", "faiss-cpu", "faiss-gpu")


def build_index(
    pairs: str | PathLike[str] | Inputs,
    settings: IndexSettings | None = None,
    *,
    quiet: bool = False,
    **overrides: Any,  # noqa: ANN401 (each setting has a type of its own)
) -> GuideIndex:
    """Embed pairs with a guide and open the guide index.

    As `gistcache index` does: an interrupted build is resumed, a finished index of the same pairs and settings is
    opened as it is.

    Args:
        pairs: A file, glob, folder or URL, or several; or rows: a ``datasets.Dataset`` or an iterable of dictionaries.
        settings: Where to write and how.
        quiet: Whether to print no progress to stderr.
        **overrides: Fields of the settings, instead of ``settings`` or on top of them: ``guide="BAAI/bge-m3"``.

    Returns:
        The index.

    Raises:
        GistcacheError: See the errors of each step; bad settings, files, guides and folders each have a class.
    """
    if settings is None:
        settings = IndexSettings(**{name: overrides.pop(name) for name in overrides.keys() & {"guide"}})
    settings = with_fields(settings, **overrides)
    before, console.quiet = console.quiet, quiet or console.quiet
    try:
        index_pairs([pairs] if isinstance(pairs, (str, PathLike)) else pairs, settings)
        return GuideIndex.open(settings.out)
    finally:
        console.quiet = before


def index_pairs(pairs: Inputs, settings: IndexSettings) -> dict[str, Any]:
    """Build, finish or confirm the guide index of pairs.

    Every shard that an earlier run of the same request has committed is kept. A finished index of the same request is
    left as it is; one of another request is an error.

    Returns:
        The summary of what that took, JSON-ready; a build writes it beside the index too.

    Raises:
        GistcacheError: See the errors of each step.
    """
    store, timings = Store.of(settings.out), Timings()
    _refuse_early(settings, store)
    with timings.measure("read pairs"):
        corpus = read_corpus(read_pairs(pairs, settings.columns, strict=settings.strict), _names(pairs))
        held_out = None
        if settings.eval_pairs:
            held_out = RetrievalSet.read(settings.eval_pairs, settings.columns, may_lack=True)
        settings = settings.for_texts(corpus.texts.height)
    with timings.measure("load guide"):
        guide, old = guide_of(settings, store), None
        if not has_manifest(store):  # a finished index is confirmed without the guide
            old = open_old_vectors(settings, guide)
            guide.expect(expected_texts(corpus, held_out, old))
        recorded = settings.recorded() | {"eval_pairs": held_out.fingerprint() if held_out else None}
        request = Request(guide.fingerprint(), corpus.fingerprint(), recorded)
    if not (manifest := finished(store, request)):
        with unfinished(store, asdict(request)) as journal, closing(engine_of(settings)) as engine:
            if has_manifest(store):  # killed after its last step, or another process has just finished it
                store.drop(store.layout.building)
                manifest = finished(store, request)
                assert manifest
            else:
                if old:
                    old.refuse_other(guide, settings.vector_dtype)
                shards = Shards(store, journal, engine)
                measured = _write_shards(shards, settings, corpus, guide, old, held_out, timings)
                libraries = {each.name: each.version for each in distributions() if each.name in LIBRARIES}
                manifest = Manifest(request, shards.records, shards.files, measured, libraries)
                finish(store, manifest)
    summary = _summary(store, manifest, timings)
    if "embed" in timings.seconds:
        write_json(store.layout.summary, summary)
        if store.remote:
            Remote(f"{store.remote.url}.summary.json").put(store.layout.summary, "")
    return summary


def _refuse_early(settings: IndexSettings, store: Store) -> None:
    """Refuse, before a pair is read, an engine that is not installed, a folder of something else, a missing guide."""
    if settings.engine == "ray":
        load_ray()
    if not has_manifest(store):
        refuse_foreign(store, "guide index")
    if settings.guide.partition(":")[0] not in NOT_FOR:
        find_model(settings.guide)


def _names(pairs: Inputs) -> str:
    """The inputs as a message names them."""
    files = isinstance(pairs, (list, tuple)) and all(isinstance(each, (str, PathLike)) for each in pairs)
    return ", ".join(map(str, pairs)) if files else "rows"


def _write_shards(
    shards: Shards,
    settings: IndexSettings,
    corpus: Corpus,
    guide: Guide,
    old: OldVectors | None,
    held_out: RetrievalSet | None,
    timings: Timings,
) -> dict[str, Any]:
    """Write every shard, step after step; returns the figures of the manifest."""
    measured = dict[str, Any]()
    with timings.measure("write texts and pairs"):
        _write_corpus(shards, corpus, settings)
    with timings.measure("embed"):
        timings.texts, rounding = embed_corpus(shards, guide, corpus, old, settings.vector_dtype)
        if rounding:
            measured["rounding"] = rounding
    if held_out:
        with timings.measure("evaluate guide"):
            measured["guide"] = held_out.evaluate(AsModel(guide))
    vectors = GuideVectors(MappedVectors(shards.rows("vectors")), shards.rows("contents"))
    exact = corpus.texts.height - corpus.queries <= settings.exact_limit
    with timings.measure("density"):
        measured["density"] = measure_density(shards, vectors, corpus, settings)
    with timings.measure("FAISS index"):
        measured["search"] = build_faiss_files(shards, vectors.vectors, corpus.queries, settings, exact=exact)
    with timings.measure("scores"):
        measured["outside_top_10"] = score_pairs(shards, vectors, corpus.queries, settings, exact=exact)
    return measured


def _write_corpus(shards: Shards, corpus: Corpus, settings: IndexSettings) -> None:
    """Write texts and pairs in all their forms, and the rejected rows."""
    assert settings.shard_rows, "IndexSettings.for_texts sets it"
    for kind in CORPUS_KINDS:
        shards.write(kind, corpus.shards(kind, settings.shard_rows))
    shards.write_file(shards.store.layout.rejected, corpus.rejected_table())


def _summary(store: Store, manifest: Manifest, timings: Timings) -> dict[str, Any]:
    corpus = manifest.request.corpus
    texts = corpus["queries"] + corpus["documents"]
    return {
        "index": str(store),
        "manifest": manifest.key,
        "guide": manifest.request.guide["name"],
        "pairs": corpus["pairs"],
        "duplicates": corpus["duplicates"],
        "rejected": corpus["rejected"],
        "texts": texts,
        "vectors": dict(timings.texts),
        "bytes": sum(record.bytes for record in manifest.records),
        "seconds": timings.as_json(),
        "seconds_total": round(sum(timings.seconds.values()), 2),
        "texts_per_second": round(texts / timings.seconds["embed"], 1) if "embed" in timings.seconds else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "measured": manifest.measured,
    }
