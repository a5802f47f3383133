"""The sections of the report, one a subject: what is shown of it, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.sampling import sample_of
from ...shared.types import PRIMARY_METRIC
from .batches import RandomBatches
from .figures import ranks_figure, runs_figure, scores_figure
from .page import Fact, Section, Table, Value
from .sample import RANK_EDGES, SEED, ScoredPairs, clipped, excerpts, positive_ranks
from .training_runs import Run

TABLE_ROWS = 100
CELL_CHARACTERS, NAME_CHARACTERS = 300, 100
BATCH_SIZE = 64  # what `gistcache train` takes where nothing is said

Texts = dict[int, str]


def report_sections(index: GuideIndex, runs: Sequence[Run], sample_size: int) -> list[Section]:
    """All sections of an index and of the runs trained against it, from at most ``sample_size`` sampled pairs."""
    sample = ScoredPairs.read(index, sample_of(len(index), sample_size, SEED))
    rank_counts, worst_ids = positive_ranks(index, TABLE_ROWS)
    worst = ScoredPairs.read(index, worst_ids)
    batches = RandomBatches.deal(index, sample, TABLE_ROWS)
    ids = [column for pairs in (sample, worst) for column in (pairs.anchors, pairs.positives, pairs.closest_ids)]
    texts = excerpts(index, np.concatenate(ids))
    return [
        glance(index, rank_counts, batches),
        *([training_runs(runs)] if runs else []),
        ranks(index, rank_counts),
        mislabelled(worst, texts),
        scores(sample, texts),
        false_negatives(batches, sample, texts),
    ]


def glance(index: GuideIndex, rank_counts: np.ndarray, batches: RandomBatches) -> Section:
    """Size and guide of the index, how often the guide agrees with the pairs, and what random batches hold."""
    corpus, guide = index.manifest.request.corpus, index.manifest.request.guide
    rejected = sum(corpus["rejected"].values())
    pairs = max(1, rank_counts.sum())
    outside = rank_counts[RANK_EDGES.index(10) :].sum()
    facts = [
        Fact("guide", str(guide["name"]), f"{guide['dim']:,} dimensions"),
        Fact("pairs", f"{corpus['pairs']:,}", f"{corpus['duplicates']:,} duplicates, {rejected:,} rejected rows"),
        Fact("texts", f"{corpus['queries'] + corpus['documents']:,}", f"{corpus['queries']:,} of them anchors"),
        Fact("positive ranked first", f"{rank_counts[0] / pairs:.1%}", "of all pairs"),
        Fact("positive outside the top 10", f"{outside / pairs:.1%}", "of all pairs"),
        Fact(
            f"false negatives in a random batch of {BATCH_SIZE}",
            f"{batches.expected(BATCH_SIZE):,.1f}",
            f"{batches.share:.2%} of its candidates, at margin 0",
        ),
    ]
    return Section("glance", "At a glance", facts=facts)


def ranks(index: GuideIndex, rank_counts: np.ndarray) -> Section:
    """Where the guide ranks the positives of all pairs."""
    exact = index.manifest.measured["search"]["exact"]
    note = f"How many documents the guide puts above the positive, of all {len(index):,} pairs."
    if not exact:
        note += " The search was approximate: ranks end with the stored neighbors."
    return Section("ranks", "Ranks of positives", note, figure=ranks_figure(rank_counts))


def mislabelled(worst: ScoredPairs, texts: Texts) -> Section:
    """Pairs whose positive is far down the guide's ranking."""
    columns = ("rank", "positive score", "closest score", "anchor", "positive", "closest instead")
    numbers = np.stack([worst.scores, worst.closest_scores], axis=1)
    ids = np.stack([worst.anchors, worst.positives, worst.closest_ids], axis=1)
    note = (
        "Of all pairs, those with the most documents above the positive in the guide's ranking, and beside each the "
        "closest document that is no known positive. Long texts are cut."
    )
    order = np.argsort(-worst.ranks, kind="stable")
    rows = [[int(worst.ranks[pair]), *map(_or_none, numbers[pair]), *_cells(ids[pair], texts)] for pair in order]
    return Section("mislabelled", "Pairs that look mislabelled", note, table=Table(columns, rows))


def scores(sample: ScoredPairs, texts: Texts) -> Section:
    """Guide scores of positives against the closest document that is no known positive."""
    compared = sample.closest_ids >= 0
    above = (sample.closest_scores > sample.scores)[compared]
    note = (
        f"For {above.mean() if len(above) else 0:.1%} of {len(above):,} sampled pairs, the guide scores a document "
        "that is no known positive higher than the positive: they lie above the line. Point at a pair to read it."
    )
    return Section("scores", "Positives against the closest non-positive", note, figure=scores_figure(sample, texts))


def false_negatives(batches: RandomBatches, sample: ScoredPairs, texts: Texts) -> Section:
    """What an unguided loss would push apart in random batches."""
    columns = ("score", "positive score", "anchor", "its positive", "pushed away")
    rows: list[list[Value]] = []
    for pair, other, score in batches.clearest:
        ids = np.array([sample.anchors[pair], sample.positives[pair], sample.positives[other]])
        rows.append([score, float(sample.scores[pair]), *_cells(ids, texts)])
    note = (
        f"Positives of other pairs in a random batch of {batches.batch_size:,} that the guide scores above the "
        "anchor's own positive: each anchor's highest, the clearest on top. Known positives are left out. A batch of "
        f"{BATCH_SIZE} pairs holds {batches.expected(BATCH_SIZE):,.1f} false negatives on average, anchors against "
        "anchors and positives against positives included."
    )
    return Section("false-negatives", "False negatives in random batches", note, table=Table(columns, rows))


def training_runs(runs: Sequence[Run]) -> Section:
    """Curves and final figures of training runs."""
    best = f"{PRIMARY_METRIC} after"
    columns = ("run", "student", "steps", *runs[0].figures, "index")
    ordered = sorted(runs, key=lambda run: run.figures[best] or -np.inf, reverse=True)
    rows = [
        [*_names(run), run.steps, *run.figures.values(), "this one" if run.same_index else "another"] for run in ordered
    ]
    note = "Every run is on each chart; click on a name to hide it. Held-out pairs before and after training."
    return Section(
        "runs", "Training runs", note, figure=runs_figure(runs), table=Table(columns, rows, columns.index(best))
    )


def _cells(ids: np.ndarray, texts: Texts) -> list[Value]:
    """The texts with these ids, cut; None where the id is below 0."""
    return [clipped(texts[int(each)], CELL_CHARACTERS) if each >= 0 else None for each in ids]


def _names(run: Run) -> list[str]:
    return [clipped(name, NAME_CHARACTERS) for name in (run.name, run.student)]


def _or_none(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
