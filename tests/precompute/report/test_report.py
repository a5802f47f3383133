"""The figures behind the report against plain loops and scikit-learn; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from gistcache.precompute.report import command as report_module
from gistcache.precompute.report.batches import MARGINS, NearDuplicate, RandomBatches, near_duplicates
from gistcache.precompute.report.command import ReportSettings, report
from gistcache.precompute.report.costs import saved
from gistcache.precompute.report.figures import (
    HOVER_BYTES,
    clusters_figure,
    runs_figure,
    scores_figure,
)
from gistcache.precompute.report.page import Section, render
from gistcache.precompute.report.page_tables import final_figures, mislabelled
from gistcache.precompute.report.page_tables import near_duplicates as near_duplicates_table
from gistcache.precompute.report.sample import (
    RANK_EDGES,
    SEED,
    Excerpt,
    ScoredPairs,
    clipped,
    excerpts,
    positive_ranks,
    principal_plane,
    sampled_pairs,
)
from gistcache.precompute.report.training_runs import Run, read_runs
from gistcache.shared.errors import InputError, SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex

from tests.conftest import build_test_index

NASTY = "<img src=x onerror='hack()'>&\"\u2028</script>終"


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


@pytest.fixture(scope="module")
def sample(index):
    return ScoredPairs.read(index, sampled_pairs(index, 100))


def test_the_sample_holds_what_the_index_says(index, sample):
    assert len(sample) == 100
    stored = [row for table in index.scores() for row in table.to_pylist()]
    content = index.content_ids(np.arange(index.manifest.rows["texts"]))
    everything = index.pairs(np.arange(len(index)))
    for place, pair in enumerate(sample.pair_ids):
        row, anchor = stored[pair], everything.anchors[pair]
        assert (sample.scores[place], sample.ranks[place]) == (np.float32(row["positive_score"]), row["positive_rank"])
        assert sample.neighbors[place].tolist() == row["neighbor_ids"]
        positives = set(content[everything.positives[everything.anchors == anchor]])
        others = [each for each in row["neighbor_ids"] if content[each] not in positives]
        assert sample.closest_ids[place] == others[0]
        assert sample.closest_scores[place] == row["neighbor_scores"][row["neighbor_ids"].index(others[0])]


def test_ranks_are_of_all_pairs_and_the_worst_are_named(index):
    ranks = np.concatenate([table["positive_rank"].to_numpy() for table in index.scores()])
    counts, worst = positive_ranks(index, 9)
    assert counts.sum() == len(index)
    ends = (*RANK_EDGES[1:], np.inf)
    assert counts.tolist() == [
        ((ranks >= low) & (ranks < high)).sum() for low, high in zip(RANK_EDGES, ends, strict=True)
    ]
    assert sorted(ranks[worst]) == sorted(ranks)[-9:]


def test_false_negatives_are_the_cells_above_the_threshold(index, sample):
    batches = RandomBatches.of(index, sample, most=500)
    assert list(batches.per_anchor) == [16, 64]
    for size, found in batches.per_anchor.items():
        order = np.random.default_rng([SEED, size]).permutation(len(sample))
        dealt = order[: len(order) // size * size].reshape(-1, size)
        for margin in (0, 10):
            cells = [cell for batch in dealt for cell in removed(index, sample, batch, MARGINS[margin])]
            assert found[margin] == pytest.approx(len(cells) / dealt.size, abs=2 / dealt.size)
    # Each anchor's clearest: of the positives that leave, the one with the highest score.
    taken_out = {}
    for batch in dealt:
        for block, row, column in removed(index, sample, batch, 0.0):
            if block == 0:
                taken_out.setdefault(batch[row], []).append(batch[column])
    assert {each.pair for each in batches.clearest} == set(taken_out)
    for each in batches.clearest:
        scores = index.vectors(sample.positives[taken_out[each.pair]]).astype(np.float32) @ index.vectors(
            sample.anchors[[each.pair]]
        )[0].astype(np.float32)
        assert each.score == pytest.approx(scores.max(), abs=1e-5)


def removed(index, sample, batch, margin):
    """MaskStatistics (block, row, column) that lie above the row's threshold and are no known positive, one by one."""
    ids = (sample.anchors[batch], sample.positives[batch])
    anchors, positives = (index.vectors(each).astype(np.float32) for each in ids)
    anchor_texts, positive_texts = map(index.content_ids, ids)
    known, owner = index.known_positives(sample.pair_ids[batch])
    blocks = ((anchors, positives, positive_texts), (anchors, anchors, anchor_texts))
    blocks += ((positives, positives, positive_texts),)
    for row in range(len(batch)):
        threshold = anchors[row] @ positives[row] - margin
        own = {anchor_texts[row], *known[owner == row]}
        for block, (left, right, texts) in enumerate(blocks):
            for column in range(len(batch)):
                if left[row] @ right[column] > threshold and texts[column] not in own:
                    yield block, row, column


def test_near_duplicates_are_the_closest_of_anchors_and_their_neighbours(index, sample):
    found = near_duplicates(index, sample, most=30)
    content = index.content_ids(np.arange(index.manifest.rows["texts"]))
    vectors = index.vectors(np.arange(len(content))).astype(np.float32)
    scores = {}
    for anchor, neighbors in zip(sample.anchors, sample.neighbors, strict=True):
        group = [anchor, *neighbors]
        for one in group:
            for other in group:
                if content[one] < content[other]:
                    scores[content[one], content[other]] = float(vectors[one] @ vectors[other])
    assert [each.score for each in found] == pytest.approx(sorted(scores.values(), reverse=True)[:30], abs=1e-5)
    keys = {tuple(sorted((content[each.one], content[each.other]))) for each in found}
    assert len(keys) == 30
    assert keys <= set(scores)


def test_texts_that_begin_alike_are_shown_from_where_they_part():
    one, other = ("same words " * 50 + end for end in ("here one", "here two"))
    texts = {5: Excerpt(one, len(one)), 6: Excerpt(other, len(other))}
    duplicates = [NearDuplicate(5, 6, 0.99)]
    row = near_duplicates_table(duplicates, queries=5, texts=texts).rows[0]
    assert row[2].startswith("…")
    assert (row[2][-3:], row[3][-3:]) == ("one", "two")


def test_the_plane_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(3).normal(size=(50, 8)) * np.arange(1, 9)
    flat, explained = principal_plane(vectors)
    theirs = PCA(2).fit(vectors)
    assert np.abs(flat) == pytest.approx(np.abs(theirs.transform(vectors)))
    assert explained == pytest.approx(theirs.explained_variance_ratio_.sum())


def test_texts_of_an_index_are_read_and_cut(index, sample):
    found = excerpts(index, np.array([*sample.anchors[:5], -1, *sample.positives[:5]]))
    assert set(found) == {*sample.anchors[:5].tolist(), *sample.positives[:5].tolist()}
    dataset = index.to_dataset()[sample.pair_ids[:5].tolist()]
    assert [found[number].text for number in sample.anchors[:5]] == dataset["anchor"]
    for text in ("short", "終" * 400, "<" * 400, '"\\' * 400, NASTY * 40):
        cut = clipped(text, HOVER_BYTES)
        assert cut == text or cut.endswith("…")
        escaped = json.dumps(cut, ensure_ascii=False)
        assert len(escaped.encode()) + 5 * sum(map(escaped.count, "<>&'")) <= HOVER_BYTES + 3


def test_the_page_stays_small_whatever_the_texts(index):
    """As of a million-text index: all points, all rows, long texts of what takes most room, very many runs."""
    few = ScoredPairs.read(index, np.arange(len(index)))
    places = np.resize(np.arange(len(few)), 4_096)
    fields = {name: getattr(few, name)[places] for name in ScoredPairs.__dataclass_fields__}
    sample = ScoredPairs(**fields)
    texts = {number: Excerpt(NASTY * 90, 3_690) for number in range(index.manifest.rows["texts"])}
    curve = [(step, step / 7) for step in range(3_000)]
    runs = [
        Run(
            NASTY * 9,
            NASTY * 9,
            3_000,
            1.0,
            {"loss": 1.0},
            dict.fromkeys(("loss", "ndcg@10", "removed_share"), curve),
            False,
        )
        for _ in range(report_module.MOST_RUNS)
    ]
    table = mislabelled(ScoredPairs(**{name: values[:100] for name, values in fields.items()}), texts)
    figures = [scores_figure(sample, texts), clusters_figure(index, sample, texts), runs_figure(runs)]
    tables = [table, replace(table, name="second"), replace(table, name="third"), final_figures(runs)]
    page = render(NASTY, [Section("s", "S", figures=figures, tables=tables)])
    assert len(page.encode()) < 5_950_000


def test_what_a_guide_in_the_loop_would_have_cost(index):
    run = Run("a", "s", 10, 2.5, {}, {}, same_index=True)
    other = Run("b", "s", 10, 9.0, {}, {}, same_index=False)
    facts = {fact.name: fact for fact in saved(index, [run, run, other])}
    assert facts["passes of a guide in the loop"].value == "5.00"
    assert f"{120 * 5:,} texts a pass" in facts["passes of a guide in the loop"].note
    assert facts["guide seconds"].value == "not known"  # the fixture wrote no summary


def test_the_smallest_index_has_a_page_too(tmp_path, guide_folder):
    rows = [{"anchor": "red dog", "positive": "blue cat"}]
    folder = build_test_index(tmp_path / "one", rows, guide_folder, vector_dtype="int8")
    outcome = report(str(folder), settings=ReportSettings(out=tmp_path / "report.html"))
    assert outcome.data["bytes"] == (tmp_path / "report.html").stat().st_size
    sample = ScoredPairs.read(GuideIndex.open(folder), np.array([0]))
    assert (sample.closest.tolist(), sample.closest_ids.tolist()) == ([-1], [-1])


def test_what_is_no_run_is_refused(tmp_path, index):
    with pytest.raises(InputError, match="no finished training run"):
        read_runs([tmp_path], index)
    for content in ("[]", "not json", '{"retrieval": {}}', '{"retrieval": 3, "log": []}'):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_runs([tmp_path], index)


def test_a_missing_library_and_bad_settings_are_told(tmp_path, small_index, monkeypatch):
    with pytest.raises(SettingsError, match="100 runs at most"):
        ReportSettings(runs=(tmp_path,) * 101)
    with pytest.raises(SettingsError, match="out of range"):
        ReportSettings(sample=0)
    monkeypatch.setattr(report_module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install 'gistcache\\[report\\]'"):
        report(str(small_index))
