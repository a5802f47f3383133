"""The sections of the report, one a subject: what is shown of it, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.sampling import sample_of
from .batches import RandomBatches
from .page import Fact, Section, Table, Value, empty_figure, escaped
from .sample import RANK_BARS, SEED, ScoredPairs, excerpts, positive_ranks
from .training_runs import Run, training_runs

TABLE_ROWS = 100
POINTS = 800  # of a figure, with two texts each: the page stays under 6 MB
BATCH_SIZE = 64  # what `gistcache train` takes where nothing is said

Texts = dict[int, str]


def report_sections(index: GuideIndex, runs: Sequence[Run], sample_size: int) -> list[Section]:
    """All sections of an index and of the runs trained against it."""
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
    expected, share = f"{batches.expected(BATCH_SIZE):,.1f}", f"{batches.share:.2%} of its candidates, at margin 0"
    outside = rank_counts[np.array(list(RANK_BARS)) >= 10].sum()
    facts = (
        Fact("guide", str(guide["name"]), f"{guide['dim']:,} dimensions"),
        Fact("pairs", f"{corpus['pairs']:,}", f"{corpus['duplicates']:,} duplicates, {rejected:,} rejected rows"),
        Fact("texts", f"{corpus['queries'] + corpus['documents']:,}", f"{corpus['queries']:,} of them anchors"),
        Fact("positive ranked first", f"{rank_counts[0] / len(index):.1%}", "of all pairs"),
        Fact("positive outside the top 10", f"{outside / len(index):.1%}", "of all pairs"),
        Fact(f"false negatives in a random batch of {BATCH_SIZE}", expected, share),
    )
    return Section("glance", "At a glance", facts=facts)


def ranks(index: GuideIndex, rank_counts: np.ndarray) -> Section:
    """Where the guide ranks the positives of all pairs."""
    note = f"How many documents the guide puts above the positive, of all {len(index):,} pairs."
    if not index.manifest.measured["search"]["exact"]:
        note += " The search was approximate: ranks end with the stored neighbors."
    figure = empty_figure("documents above the positive", "share of pairs", height=340)
    figure.update_yaxes(tickformat=".0%")
    shares, template = rank_counts / len(index), "%{x} above: %{customdata:,} pairs, %{y:.1%}<extra></extra>"
    figure.add_bar(x=list(RANK_BARS.values()), y=shares, customdata=rank_counts, hovertemplate=template)
    figure.update_xaxes(type="category")
    return Section("ranks", "Ranks of positives", note, figure=figure)


def mislabelled(worst: ScoredPairs, texts: Texts) -> Section:
    """Pairs whose positive is far down the guide's ranking."""
    columns = ("rank", "positive score", "closest score", "anchor", "positive", "closest instead")
    note = (
        "Of all pairs, those with the most documents above the positive in the guide's ranking, and beside each the "
        "closest document that is no known positive. Long texts are cut."
    )
    numbers = zip(worst.ranks.tolist(), worst.scores.tolist(), worst.closest_scores.tolist(), strict=True)
    ids = zip(worst.anchors, worst.positives, worst.closest_ids, strict=True)
    rows = [[*values, *(texts[id_] for id_ in row)] for values, row in zip(numbers, ids, strict=True)]
    table = Table(columns, [rows[pair] for pair in np.argsort(-worst.ranks, kind="stable")])
    return Section("mislabelled", "Pairs that look mislabelled", note, table=table)


def scores(sample: ScoredPairs, texts: Texts) -> Section:
    """Guide scores of positives against the closest document that is no known positive."""
    pairs = np.flatnonzero(sample.closest_ids >= 0)
    above = (sample.closest_scores > sample.scores)[pairs].sum()
    note = (
        f"For {above / max(1, len(pairs)):.1%} of {len(pairs):,} sampled pairs, the guide scores a document that is no "
        "known positive higher than the positive: they lie above the line. Point at a pair to read it."
    )
    pairs = pairs[sample_of(len(pairs), POINTS, SEED)]
    x, y = sample.scores[pairs], sample.closest_scores[pairs]
    equal = (min([1.0, *x.tolist(), *y.tolist()]), 1.0)
    columns = {"anchor": sample.anchors, "positive": sample.positives, "closest": sample.closest_ids}
    hover = [
        "<br>".join(f"{name}: {escaped(texts[int(ids[pair])])}" for name, ids in columns.items()) for pair in pairs
    ]
    template = "%{x:.3f} against %{y:.3f}<br>%{text}<extra></extra>"
    figure = empty_figure("positive", "closest non-positive", height=400)
    figure.add_scatter(x=x, y=y, text=hover, mode="markers", marker={"size": 5, "opacity": 0.7}, hovertemplate=template)
    figure.add_scatter(x=equal, y=equal, mode="lines", line={"dash": "dot", "width": 1}, hoverinfo="skip")
    return Section("scores", "Positives against the closest non-positive", note, figure=figure)


def false_negatives(batches: RandomBatches, sample: ScoredPairs, texts: Texts) -> Section:
    """What an unguided loss would push apart in random batches."""
    columns = ("score", "positive score", "anchor", "its positive", "pushed away")
    rows: list[list[Value]] = []
    for pair, other, score in batches.clearest:
        ids = (sample.anchors[pair], sample.positives[pair], sample.positives[other])
        rows.append([score, float(sample.scores[pair]), *(texts[id_] for id_ in ids)])
    note = (
        f"Positives of other pairs in a random batch of {batches.batch_size:,} that the guide scores above the "
        "anchor's own positive: each anchor's highest, the clearest on top. Known positives are left out. A batch of "
        f"{BATCH_SIZE} pairs holds {batches.expected(BATCH_SIZE):,.1f} false negatives on average, anchors against "
        "anchors and positives against positives included."
    )
    return Section("false-negatives", "False negatives in random batches", note, table=Table(columns, rows))
