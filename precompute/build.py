"""Stage 1, step by step: pairs -> texts -> vectors -> density -> FAISS -> scores -> manifest."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..shared.data.pairs import read_pairs
from ..shared.evaluation.retrieval import RetrievalSet
from ..shared.guide_index.layout import CONTENT_COLUMNS, ShardKind, unrounded_rows
from ..shared.guide_index.manifest import Manifest, Request
from ..shared.guide_index.memory_map import MappedRows, MappedVectors
from ..shared.libraries import installed
from ..shared.models.load import find_model
from ..shared.progress import Advance, step
from ..shared.sampling import sample_of
from ..shared.storage.files import FileRecord, Journal
from ..shared.timing import Timings
from .corpus import Corpus, read_corpus
from .embed.encode import KEPT, EncodeJob
from .embed.expected_texts import all_texts, older_vectors
from .embed.reuse import OldVectors
from .embed.unrounded import SampledPairs, Unrounded, UnroundedJob
from .guides.base import AsModel, Guide
from .guides.choose import guide_of
from .output.lifecycle import INDEX, finish, finished, has_manifest, refuse_foreign, unfinished
from .output.store import Store
from .run.jobs import Engine, Job, ShardResult, Value
from .run.local import InProcess, engine_of
from .run.ray import load_ray
from .search import faiss_index
from .search.density import DensityJob, DensityReference
from .search.faiss_files import FaissJob
from .search.guide_vectors import GuideVectors
from .search.neighbors import DocumentShard, document_shards
from .search.pair_scores import ScoreJob, anchor_centroids, found_file, found_folder
from .settings import NOT_FOR, IndexSettings
from .summary import outside_top

LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "pyarrow", "polars", "faiss-cpu", "faiss-gpu")


def build_index(inputs: Iterable[str], settings: IndexSettings, clock: Timings) -> Manifest:
    """Build, finish or confirm the guide index of the inputs.

    Every part that an earlier run of the same request has committed is kept. A finished index of the same request is
    left as it is; one of another request is an error.

    Raises:
        GistcacheError: See the errors of each step.
    """
    place, inputs = Store.of(settings.out), list(inputs)
    _refuse_early(settings, place)
    with clock.measure("read pairs"):
        corpus = read_corpus(read_pairs(inputs, settings.columns, strict=settings.strict), ", ".join(inputs))
        held_out = (
            RetrievalSet.read(settings.eval_pairs, settings.columns, may_lack=True) if settings.eval_pairs else None
        )
        settings = settings.for_texts(corpus.texts.height)
    with clock.measure("load guide"):
        guide, old = guide_of(settings, place), None
        if not has_manifest(place):  # else nothing will be asked for
            old = older_vectors(settings, guide)
            guide.expect(all_texts(corpus, held_out, old, roles_alike=guide.same_for_both_roles))
        recorded = settings.recorded() | {"eval_pairs": held_out.fingerprint() if held_out else None}
        request = Request(guide.fingerprint(), corpus.fingerprint(), recorded)
    if held := finished(place, request):
        return held
    with unfinished(place, asdict(request)) as journal:
        if has_manifest(place):  # killed after its last step, or finished by another process just now
            shutil.rmtree(place.layout.building)
            held = finished(place, request)
            assert held
            return held
        if old:
            old.refuse_other(guide, settings.vector_dtype)
        with closing(engine_of(settings)) as engine:
            manifest = _Build(place, journal, guide, corpus, settings, clock, old, engine).run(request, held_out)
        finish(place, manifest)
    return manifest


def _refuse_early(settings: IndexSettings, place: Store) -> None:
    """What can be seen before a pair is read: no engine, a folder of something else, a guide that is not there."""
    if settings.engine == "ray":
        load_ray()
    if not has_manifest(place):
        refuse_foreign(place, INDEX, place.remote.sizes() if place.remote else {})
    if settings.guide.partition(":")[0] not in NOT_FOR:
        find_model(settings.guide)


class _Build:
    """One run of the stage; each method is one step and returns the records of what it wrote or kept."""

    def __init__(
        self,
        place: Store,
        journal: Journal,
        guide: Guide,
        corpus: Corpus,
        settings: IndexSettings,
        clock: Timings,
        old: OldVectors | None,
        engine: Engine,
    ) -> None:
        self.place, self.journal, self.guide, self.corpus = place, journal, guide, corpus
        self.settings, self.clock, self.old = settings, clock, old
        self.engine = engine
        self.guide_engine = engine if guide.runs_in_workers else InProcess()
        assert settings.shard_rows, "IndexSettings.for_texts sets it"
        assert settings.density_k, "IndexSettings.for_texts sets it"
        self.rows, self.density_k = settings.shard_rows, settings.density_k
        self.exact = corpus.documents <= settings.exact_limit
        self.shards: dict[ShardKind, list[FileRecord]] = {}

    def run(self, request: Request, held_out: RetrievalSet | None) -> Manifest:
        """All steps, in order."""
        measured: dict[str, Any] = {}
        with self.clock.measure("write texts and pairs"):
            rejected = self.tables()
        with self.clock.measure("embed"):
            self.embed()
        if held_out:
            with self.clock.measure("evaluate guide"):
                measured["guide"] = held_out.evaluate(AsModel(self.guide))
        vectors = MappedVectors(self.place.rows(self.shards["vectors"]))
        space = GuideVectors(vectors, self._contents, self.corpus.queries)
        with self.clock.measure("density"):
            measured["density"] = self.density(space)
        with self.clock.measure("FAISS index"):
            measured["search"] = self.search_files(space)
        with self.clock.measure("scores"):
            self.scores(space)
        measured["outside_top_10"] = outside_top(self.place, self.shards["scores"])
        libraries = {name: version for name in LIBRARIES if (version := installed(name))}
        return Manifest(request, self.shards, [rejected], measured, libraries)

    def tables(self) -> FileRecord:
        """Texts and pairs in all their forms, and the rejected rows."""
        corpus, rows, place = self.corpus, self.rows, self.place
        forms: dict[ShardKind, Iterator[pa.Table] | Iterator[np.ndarray]] = {
            "texts": corpus.text_parts(rows),
            "pairs": corpus.pair_parts(rows),
            "contents": corpus.content_parts(rows),
            "lookup": corpus.lookup_parts(rows),
            "negatives": corpus.negative_parts(rows),
        }
        for kind, parts in forms.items():
            self.shards[kind] = [
                self.journal.keep_or_make(
                    place.layout.shard(kind, number), partial(place.commit_shard, kind, number, part)
                )
                for number, part in enumerate(parts)
            ]
        path = place.layout.rejected
        return self.journal.keep_or_make(path, lambda: place.commit_table(path, corpus.rejected_table()))

    @property
    def _contents(self) -> MappedRows:
        return self.place.rows(self.shards["contents"], (CONTENT_COLUMNS,), np.int64)

    def embed(self) -> None:
        """Guide vectors: of the queries, then of the documents, which may copy those of equal queries."""
        ranges, counts = self.corpus.part_ranges(self.rows), Counter[str]()
        first = sum(start < self.corpus.queries for start, _ in ranges)
        kept = sum(stop - start for number, (start, stop) in enumerate(ranges) if self._record("vectors", number))
        if kept:
            counts[KEPT] = kept
        job = EncodeJob(
            self.place, self.guide, self.shards["texts"], self._contents, self.corpus.queries, None, self.old,
            self.unrounded(), self.settings.vector_dtype,
        )  # fmt: skip
        with step("embed texts", self.corpus.texts.height, "texts", done=kept) as advance:
            told = self._run("vectors", job, range(first), advance, self.guide_engine)
            job = replace(job, of_queries=self.place.rows(self.shards["vectors"]))
            told += self._run("vectors", job, range(first, len(ranges)), advance, self.guide_engine)
        for each in told:
            counts.update(each)
        self.clock.texts = counts

    def unrounded(self) -> Unrounded:
        """The vectors of the sample of pairs that is kept as the guide gives it."""
        sample = SampledPairs.of(self.corpus, roles_alike=self.guide.same_for_both_roles)
        job = UnroundedJob(self.place, self.guide, sample, self.old)
        with step("embed a sample, kept unrounded for verify", len(sample.pair_ids), "pairs") as advance:
            self._run("unrounded", job, range(1), advance, self.guide_engine)
        return Unrounded(sample.keys, self.place.rows(self.shards["unrounded"], (), unrounded_rows(self.guide.dim)))

    def density(self, space: GuideVectors) -> dict[str, Any]:
        """Every text's scale."""
        content_ids = self.corpus.texts["content_id"].to_numpy()
        reference = DensityReference.of(content_ids, self.density_k, self.settings.seed)
        ranges = self.corpus.part_ranges(self.rows)
        job = DensityJob(self.place, space, reference, ranges, self.settings.device)
        with step("density", self.corpus.texts.height, "texts") as advance:
            self._run("density", job, range(len(ranges)), advance, self.engine)
        return reference.told()

    def search_files(self, space: GuideVectors) -> dict[str, Any]:
        """A FAISS file for each slice of documents; what kind it is, with its measured recall."""
        slices = self._slices()
        kept = {number: record for number in range(len(slices)) if (record := self._record("faiss", number))}
        ids = sample_of(space.queries, 0 if self.exact else faiss_index.SAMPLE_QUERIES, self.settings.seed)
        sample = space.vectors.take(ids).astype(np.float32)
        job = FaissJob(
            self.place, space.vectors, slices, self.exact, sample, self.settings.neighbors, self.settings.seed, kept,
            self.settings.device,
        )  # fmt: skip
        told: dict[int, Mapping[str, Any]] = {}
        with step("FAISS index", self.corpus.documents, "documents") as advance:
            for made in self.engine.run(job, range(len(slices)), advance):
                told[made.number] = made.stats
                self._keep(made)
        self._collect("faiss", range(len(slices)))
        if self.exact:
            return {"exact": True, "kind": "Flat", "slices": len(slices)}
        recalls = [told[number].get("recall", 1.0) for number in range(len(slices))]
        return {
            "exact": False,
            **told[0],
            "slices": len(slices),
            "recall": round(float(np.mean(recalls)), 4),
            "recall_at": self.settings.neighbors,
            "recall_sample": len(ids),
        }

    def scores(self, space: GuideVectors) -> None:
        """Scores, neighbours, ranks and clusters of every pair: slice after slice, each over all parts of pairs."""
        slices, parts = self._slices(), range(len(self.shards["pairs"]))
        todo = [number for number in parts if not self._record("scores", number)]
        centroids = anchor_centroids(space, self.settings.clusters, self.settings.seed) if todo else np.empty((0, 0))
        with step("scores", self.corpus.pairs.height * len(slices), "pairs") as advance:
            for documents in slices if todo else []:
                job = ScoreJob(
                    self.place, space, self.shards["pairs"], documents,
                    faiss=None if self.exact else self.shards["faiss"][documents.number],
                    before=self._found(documents.number - 1, todo),
                    last=documents == slices[-1],
                    neighbors=self.settings.neighbors,
                    centroids=centroids,
                    device=self.settings.device,
                )  # fmt: skip
                ahead = {part for later in slices[documents.number :] for part in self._found(later.number, todo)}
                for made in self.engine.run(job, [part for part in todo if part not in ahead], advance):
                    self._keep(made)
                if documents.number:
                    self.place.drop(found_folder(self.place, documents.number - 1))
        self._collect("scores", parts)

    def _found(self, slice_number: int, parts: Sequence[int]) -> dict[int, FileRecord]:
        """What the slices up to this one have given, by part."""
        paths = {part: self._name(found_file(self.place, slice_number, part)) for part in parts}
        return {part: self.journal.done[path] for part, path in paths.items() if path in self.journal.done}

    def _slices(self) -> list[DocumentShard]:
        return document_shards(self.corpus.queries, self.corpus.texts.height, self.settings.document_shard_rows)

    def _run(
        self, kind: ShardKind, job: Job[Value], numbers: Sequence[int], advance: Advance, engine: Engine
    ) -> list[Mapping[str, Any]]:
        """Make the parts that are not there yet, and list them all; returns what is told of each that was made."""
        told = []
        for made in engine.run(job, [number for number in numbers if not self._record(kind, number)], advance):
            self._keep(made)
            told.append(made.stats)
        self._collect(kind, numbers)
        return told

    def _keep(self, made: ShardResult) -> None:
        if made.record and made.record.path not in self.journal.done:
            self.journal.record(made.record)

    def _collect(self, kind: ShardKind, numbers: Sequence[int]) -> None:
        paths = [self._name(self.place.layout.shard(kind, number)) for number in numbers]
        self.shards[kind] = [*self.shards.get(kind, []), *(self.journal.done[path] for path in paths)]

    def _record(self, kind: ShardKind, number: int) -> FileRecord | None:
        return self.journal.done.get(self._name(self.place.layout.shard(kind, number)))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.place.root).as_posix()
