"""`gistcache rescore`: a reranker reads each anchor with its positive, its negatives and its stored neighbours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from cyclopts import Parameter
from rich.text import Text

from ...shared.cli.output import CommandResult
from ...shared.errors import refuse_below, refuse_url
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.layout import RESCORED
from ...shared.guide_index.ragged import as_lists, padded
from ...shared.guide_index.reranker_scores import RESCORED_FORMAT, RescoredFolder, refuse_other_scores_format
from ...shared.guide_index.texts import Texts
from ...shared.progress import step
from ...shared.storage.checksummed_json import write_checksummed
from ...shared.storage.files import FileRecord, Journal
from ...shared.types import DType
from ..output.lifecycle import Contents, refuse_foreign, unfinished
from ..output.store import Store
from .cross_encoder import Reranker

SCORES = Contents(
    "reranker's scores",
    "folder",
    "The folder holds scores made of something else",
    "use another --out, or give the index, reranker and settings it was made with, or delete it",
    refuse_other_scores_format,
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RescoreSettings:
    """Everything `gistcache rescore` can be told besides the index."""

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
    """Texts that are read together with their anchors in one forward pass."""
    shard_rows: int = 512
    """Training pairs a part file: what is lost at most when the process is killed."""

    def __post_init__(self) -> None:
        """Check every value."""
        refuse_below(self, 1, "max_length", "batch_size", "shard_rows")
        refuse_url(self.out, "--out")


def rescore(index: str, *, settings: RescoreSettings) -> CommandResult:
    """Score an index's neighbours, positives and negatives with a reranker, for --rescored of train and mine.

    Run the same command again after an interruption: every finished part is kept.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    folder = rescore_index(GuideIndex.open(index), settings)
    figures = {"out": str(folder.root), "parts": len(folder.parts)}
    return CommandResult(figures, (Text(f"{folder.root}: {len(folder.parts):,} parts"),))


def rescore_index(index: GuideIndex, settings: RescoreSettings) -> RescoredFolder:
    """Write, finish or confirm the scores of an index.

    Raises:
        StaleIndexError: The folder holds scores of another index, reranker or settings; names each difference.
        GistcacheError: The reranker cannot be used, or the folder holds something else, or is being written.
    """
    place, reranker = Store.of(settings.out), Reranker(settings)
    request = {
        "rescored_format": RESCORED_FORMAT,
        "index": {"manifest": index.manifest.key},
        "reranker": reranker.fingerprint(),
        "settings": {"shard_rows": settings.shard_rows},
    }
    layout = place.layout
    if not layout.manifest.exists() or layout.building.exists():
        refuse_foreign(place, SCORES)
        with unfinished(place, request, SCORES) as journal:
            if not layout.manifest.exists():  # else killed after its last step, or finished by another process just now
                parts = _parts(index, reranker, place, journal, settings.shard_rows)
                write_checksummed(layout.manifest, request | {"parts": [asdict(record) for record in parts]})
            shutil.rmtree(layout.building)
    folder = RescoredFolder.load(layout.root)
    SCORES.refuse_other(place, folder.request, request)
    return folder


def _parts(index: GuideIndex, reranker: Reranker, place: Store, journal: Journal, rows: int) -> list[FileRecord]:
    """Every part, made or kept."""
    texts, kept = Texts(index), sum(record.rows for record in journal.done.values())

    def made(number: int, pairs: pa.Table) -> FileRecord:
        record = place.commit_shard("rescored", number, rescored_table(index, texts, reranker, pairs))
        advance(record.rows)
        return record

    with step("rescore", len(index), "pairs", done=kept) as advance:
        return [
            journal.keep_or_make(place.layout.shard("rescored", number), partial(made, number, pairs))
            for number, pairs in enumerate(_slices(index, rows))
        ]


def _slices(index: GuideIndex, rows: int) -> Iterator[pa.Table]:
    """Pair ids and neighbours of at most ``rows`` pairs at a time."""
    for table in index.scores(["pair_id", "neighbor_ids"]):
        for start in range(0, table.num_rows, rows):
            yield table.slice(start, rows)


def rescored_table(index: GuideIndex, texts: Texts, reranker: Reranker, pairs: pa.Table) -> pa.Table:
    """The reranker's scores of some pairs, see ``schema.RESCORED``; it reads each anchor once with each document.

    Args:
        index: The guide index.
        texts: Its texts.
        reranker: The reranker.
        pairs: ``pair_id`` and ``neighbor_ids``.
    """
    ids = index.pairs(pairs["pair_id"].to_numpy())
    neighbors = padded(pairs["neighbor_ids"], int(index.manifest.request.settings["neighbors"]), -1, np.int64)
    documents = np.column_stack([ids.positives, ids.negatives, neighbors])
    held = documents >= 0
    cells = np.column_stack([np.broadcast_to(ids.anchors[:, None], documents.shape)[held], documents[held]])
    unique, place = np.unique(cells, axis=0, return_inverse=True)
    scores = np.zeros(documents.shape, dtype=np.float32)
    scores[held] = reranker.scores(*(texts.take(each).to_pylist() for each in unique.T))[place]
    negatives, stored = (slice(1, 1 + ids.negatives.shape[1]), slice(1 + ids.negatives.shape[1], None))

    def lists(columns: slice) -> pa.Array:
        return as_lists(scores[:, columns][held[:, columns]], held[:, columns].sum(axis=1))

    return pa.table([pairs["pair_id"].combine_chunks(), scores[:, 0], lists(negatives), lists(stored)], schema=RESCORED)
