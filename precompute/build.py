"""Stage 1, step by step: pairs -> texts -> vectors -> scales -> FAISS -> scores -> manifest."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ..shared.checked import refuse_damaged
from ..shared.clock import Clock
from ..shared.errors import IndexFaultError
from ..shared.evaluation import RetrievalSet
from ..shared.lock import folder_lock
from ..shared.manifest import (
    Manifest,
    Request,
    differences,
    refuse_differences,
    refuse_other_format,
    request_from_json,
)
from ..shared.pairs import read_pairs
from ..shared.parts import Journal, PartRecord, commit, commit_array, commit_table
from ..shared.progress import console, step
from ..shared.schema import Layout, PartKind
from ..shared.sealed import parse_object, unsealed, write_sealed
from ..shared.vectors import RowStore
from . import faiss_index
from .corpus import Corpus, read_corpus
from .encode import encode_corpus
from .guides import Guide
from .reuse import OldVectors
from .settings import IndexSettings
from .similarity import (
    Neighbors,
    ScaleReference,
    Space,
    anchor_centroids,
    approximate_neighbors,
    exact_neighbors,
    scales,
    score_pairs,
)

LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "pyarrow", "polars", "faiss-cpu", "faiss-gpu")


def build_index(inputs: Iterable[str], settings: IndexSettings, clock: Clock) -> Manifest:
    """Build, finish or confirm the guide index of the inputs.

    Every part that an earlier run of the same request has committed is kept. A finished index of the same request is
    left as it is; one of another request is an error.

    Raises:
        GistcacheError: See the errors of each step.
    """
    layout = Layout(settings.out)
    with clock.measure("read pairs"):
        corpus = read_corpus(read_pairs(inputs, settings.columns, strict=settings.strict))
        held_out = RetrievalSet.read(settings.eval_pairs, settings.columns) if settings.eval_pairs else None
    with clock.measure("load guide"):
        guide = Guide(settings.guide_settings, settings.device, settings.batch_tokens)
        request = _request(guide, corpus, settings, held_out)
    if layout.manifest.exists() and not layout.building.exists():
        return _confirmed(layout, request)
    _refuse_foreign_folder(layout)
    with folder_lock(layout.building):
        if layout.manifest.exists():  # killed after its last step, or finished by another process just now
            manifest = _confirmed(layout, request)
            shutil.rmtree(layout.building)
            return manifest
        journal = _open_journal(layout, request)
        old = OldVectors.open(settings.reuse, guide) if settings.reuse else None
        manifest = _Build(layout, journal, guide, corpus, settings, clock, old).run(request, held_out)
        manifest.save(layout)
        shutil.rmtree(layout.building)
    return manifest


def _confirmed(layout: Layout, request: Request) -> Manifest:
    """The manifest of a finished index of this request."""
    manifest = Manifest.load(layout)
    refuse_differences(layout.root, differences(manifest.request, request))
    refuse_damaged(layout.root, list(manifest.records))
    console.print(f"{layout.root} already holds this index, nothing to do", highlight=False)
    return manifest


def _request(guide: Guide, corpus: Corpus, settings: IndexSettings, held_out: RetrievalSet | None) -> Request:
    recorded = settings.recorded() | {"eval_pairs": held_out.fingerprint() if held_out else None}
    return Request(guide.fingerprint(), corpus.fingerprint(), recorded)


def _refuse_foreign_folder(layout: Layout) -> None:
    if layout.root.exists() and not layout.building.is_dir() and any(layout.root.iterdir()):
        raise IndexFaultError(
            "The folder is not empty and holds no guide index",
            where=str(layout.root),
            fix="give another --out, or empty the folder",
        )


def _open_journal(layout: Layout, request: Request) -> Journal:
    """Take up an unfinished build of the same request, or start one."""
    path = layout.building / "request.json"
    if path.exists():
        content = parse_object(path, "unfinished build's request")
        refuse_other_format(content, path)
        held = request_from_json(unsealed(content, path, "unfinished build's request"))
        refuse_differences(layout.root, differences(held, request))
    else:
        write_sealed(path, asdict(request))
    return Journal(layout.building / "journal.jsonl", layout.root)


class _Build:
    """One run of the stage; each method is one step and returns the records of what it wrote or kept."""

    def __init__(
        self,
        layout: Layout,
        journal: Journal,
        guide: Guide,
        corpus: Corpus,
        settings: IndexSettings,
        clock: Clock,
        old: OldVectors | None,
    ) -> None:
        self.layout, self.journal, self.guide, self.corpus = layout, journal, guide, corpus
        self.settings, self.clock, self.old = settings, clock, old
        self.exact = corpus.documents <= settings.exact_limit

    def run(self, request: Request, held_out: RetrievalSet | None) -> Manifest:
        """All steps, in order."""
        parts: dict[PartKind, list[PartRecord]] = {}
        measured: dict[str, Any] = {}
        with self.clock.measure("write texts and pairs"):
            parts["texts"], parts["pairs"], rejected = self.tables()
        with self.clock.measure("embed"):
            parts["vectors"], self.clock.texts = encode_corpus(
                self.guide, self.corpus, self.layout, self.journal, self.settings.part_rows, self.old
            )
        if held_out:
            with self.clock.measure("evaluate guide"):
                measured["guide"] = held_out.evaluate(self.guide.model)
        space = Space.of(self.corpus, RowStore(self.layout.root, parts["vectors"]), self.guide.device)
        with self.clock.measure("scales"):
            parts["scales"], measured["scales"] = self.scales(space)
        with self.clock.measure("FAISS index"):
            faiss_record, find, measured["search"] = self.search_index(space)
        with self.clock.measure("scores"):
            parts["scores"] = self.scores(space, find)
        return Manifest(request, parts, [rejected, faiss_record], measured, _versions())

    def tables(self) -> tuple[list[PartRecord], list[PartRecord], PartRecord]:
        """Texts, pairs and rejected rows."""
        rows, root = self.settings.part_rows, self.layout.root
        written: dict[PartKind, list[PartRecord]] = {"texts": [], "pairs": []}
        sources: dict[PartKind, Iterator[pa.Table]] = {
            "texts": self.corpus.text_parts(rows),
            "pairs": self.corpus.pair_parts(rows),
        }
        for kind, tables in sources.items():
            for number, table in enumerate(tables):
                path = self.layout.part(kind, number)
                written[kind].append(
                    self.journal.keep_or_make(path, lambda path=path, table=table: commit_table(root, path, table))
                )
        rejected = self.journal.keep_or_make(
            self.layout.rejected, lambda: commit_table(root, self.layout.rejected, self.corpus.rejected_table())
        )
        return written["texts"], written["pairs"], rejected

    def scales(self, space: Space) -> tuple[list[PartRecord], dict[str, Any]]:
        """Every text's scale."""
        reference = ScaleReference.of(space, self.settings.scale_k, self.settings.seed)
        ranges = self.corpus.part_ranges(self.settings.part_rows)
        records = []
        with step("scales", self.corpus.texts.height, "texts") as advance:
            for number, (start, stop) in enumerate(ranges):
                path = self.layout.part("scales", number)

                def make(start: int = start, stop: int = stop, number: int = number) -> PartRecord:
                    values = scales(space, reference, start, stop)
                    return commit_array(self.layout.root, self.layout.part("scales", number), values)

                records.append(self.journal.keep_or_make(path, make))
                advance(stop - start)
        return records, {"k": reference.k, "sample": len(reference.ids), "rank_in_sample": reference.rank}

    def search_index(self, space: Space) -> tuple[PartRecord, Neighbors, dict[str, Any]]:
        """The FAISS file, how to find neighbours, and what kind of index it is with its measured recall."""
        sample, truth = (None, None) if self.exact else self._recall_sample(space)

        def make() -> PartRecord:
            index = faiss_index.build(
                space.vectors, space.queries, len(space.vectors), exact=self.exact, seed=self.settings.seed
            )
            if isinstance(index, faiss_index.faiss.IndexIVF) and sample is not None and truth is not None:
                faiss_index.tune(index, sample, truth)
            return commit(
                self.layout.root, self.layout.faiss, self.corpus.documents, lambda to: faiss_index.write(index, to)
            )

        record = self.journal.keep_or_make(self.layout.faiss, make)
        if self.exact:
            return record, exact_neighbors(space), {"exact": True, "kind": "Flat"}
        index = faiss_index.read(self.layout.root, record)
        assert sample is not None
        assert truth is not None
        measured = {"exact": False, **faiss_index.describe(index)}
        measured |= {
            "recall": round(faiss_index.recall(index, sample, truth), 4),
            "recall_at": self.settings.neighbors,
            "recall_sample": len(sample),
        }
        return record, approximate_neighbors(space, faiss_index.on_gpu(index)), measured

    def _recall_sample(self, space: Space) -> tuple[np.ndarray, np.ndarray]:
        """A sample of anchors and what exact search finds for them."""
        size = min(faiss_index.SAMPLE_QUERIES, space.queries)
        ids = np.sort(np.random.default_rng(self.settings.seed).choice(space.queries, size=size, replace=False))
        sample = space.vectors.take(ids).astype(np.float32)
        nobody = np.full(size, -1, dtype=np.int64)
        return sample, exact_neighbors(space)(sample, nobody, self.settings.neighbors).ids

    def scores(self, space: Space, find: Neighbors) -> list[PartRecord]:
        """Scores, neighbours, ranks and clusters of every pair."""
        rows, records = self.settings.part_rows, []
        centroids: list[np.ndarray] = []
        with ExitStack() as stack:
            advance = stack.enter_context(step("scores", self.corpus.pairs.height, "pairs"))
            for number, start in enumerate(range(0, self.corpus.pairs.height, rows)):
                path, pairs = self.layout.part("scores", number), self.corpus.pairs.slice(start, rows)

                def make(path: Any = path, pairs: Any = pairs) -> PartRecord:  # noqa: ANN401
                    if not centroids:
                        centroids.append(anchor_centroids(space, self.settings.clusters, self.settings.seed))
                    table = score_pairs(space, pairs, find, self.settings.neighbors, centroids[0], exact=self.exact)
                    return commit_table(self.layout.root, path, table)

                records.append(self.journal.keep_or_make(path, make))
                advance(pairs.height)
        return records


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
