"""The report against plain loops over the index; its page whatever the texts hold; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from gistcache.precompute.report import command as report_module
from gistcache.precompute.report.batches import BLOCKS, LARGEST_BATCH, RandomBatches
from gistcache.precompute.report.command import ReportSettings, report
from gistcache.precompute.report.page import Section, clipped, render
from gistcache.precompute.report.sample import (
    EXCERPT_CHARACTERS,
    RANK_BARS,
    SEED,
    ScoredPairs,
    excerpts,
    positive_ranks,
)
from gistcache.precompute.report.sections import (
    TABLE_ROWS,
    false_negatives,
    glance,
    mislabelled,
    report_sections,
    scores,
)
from gistcache.precompute.report.training_runs import BEST, CURVES, Run, read_runs, training_runs
from gistcache.shared.errors import InputError, SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.sampling import sample_of

from tests.conftest import build_test_index

NASTY = "<img src=x onerror='hack()'>&\"\u2028</script>終"
COLUMNS = ("parameters", "ndcg@10 before", BEST, "seconds")
MANY_RUNS = 100
HEAVY = ("numpy", "torch", "polars", "pyarrow", "faiss", "transformers", "sentence_transformers", "datasets", "plotly")


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


@pytest.fixture(scope="module")
def sample(index):
    return ScoredPairs.read(index, sample_of(len(index), 100, SEED))


def test_the_sample_holds_what_the_index_says(index, sample):
    assert len(sample) == 100
    stored = [row for table in index.scores() for row in table.to_pylist()]
    content = index.content_ids(np.arange(index.manifest.rows["texts"]))
    everything = index.pairs(np.arange(len(index)))
    for place, pair in enumerate(sample.pair_ids):
        row, anchor = stored[pair], everything.anchors[pair]
        assert (sample.scores[place], sample.ranks[place]) == (np.float32(row["positive_score"]), row["positive_rank"])
        positives = set(content[everything.positives[everything.anchors == anchor]])
        others = [each for each in row["neighbor_ids"] if content[each] not in positives]
        assert sample.closest_ids[place] == others[0]
        assert sample.closest_scores[place] == row["neighbor_scores"][row["neighbor_ids"].index(others[0])]


def test_ranks_are_of_all_pairs_and_the_worst_are_named(index):
    ranks = np.concatenate([table["positive_rank"].to_numpy() for table in index.scores()])
    counts, worst = positive_ranks(index, 9)
    assert counts.sum() == len(index)
    ends = (*[*RANK_BARS][1:], np.inf)
    assert counts.tolist() == [
        ((ranks >= low) & (ranks < high)).sum() for low, high in zip(RANK_BARS, ends, strict=True)
    ]
    assert sorted(ranks[worst]) == sorted(ranks)[-9:]


@pytest.mark.parametrize("batch_size", [16, LARGEST_BATCH])
def test_false_negatives_are_the_candidates_above_the_threshold(index, sample, batch_size, monkeypatch):
    monkeypatch.setattr("gistcache.precompute.report.batches.LARGEST_BATCH", batch_size)
    batches = RandomBatches.deal(index, sample, most=500)
    assert batches.batch_size == min(batch_size, len(sample))
    order = np.random.default_rng(SEED).permutation(len(sample))
    dealt = order[: len(order) // batches.batch_size * batches.batch_size].reshape(-1, batches.batch_size)
    masked = [list(false_negatives_of(index, sample, batch)) for batch in dealt]
    count = sum(map(len, masked))
    assert count > 20
    assert batches.share == pytest.approx(count / (BLOCKS * dealt.size * (batches.batch_size - 1)))
    assert batches.expected(batches.batch_size) == pytest.approx(count / len(dealt))
    # Each anchor's clearest: of the positives that the judge masks, the one with the highest score.
    others = {}
    for batch, found in zip(dealt, masked, strict=True):
        for block, row, column in found:
            if block == 0:
                others.setdefault(batch[row], []).append(batch[column])
    assert {each.pair for each in batches.clearest} == set(others)
    for each in batches.clearest:
        anchor = index.vectors(sample.anchors[[each.pair]])[0].astype(np.float32)
        guide_scores = index.vectors(sample.positives[others[each.pair]]).astype(np.float32) @ anchor
        assert each.score == pytest.approx(guide_scores.max(), abs=1e-5)
    assert [each.score for each in batches.clearest] == sorted((each.score for each in batches.clearest), reverse=True)
    rows = false_negatives(batches, sample, excerpts(index, np.concatenate([sample.anchors, sample.positives])))
    assert [row[0] for row in rows.table.rows] == [each.score for each in batches.clearest]


def false_negatives_of(index, sample, batch):
    """Candidates (block, row, column) above the row's positive that are no known positive, one by one."""
    ids = (sample.anchors[batch], sample.positives[batch])
    anchors, positives = (index.vectors(each).astype(np.float32) for each in ids)
    anchor_texts, positive_texts = map(index.content_ids, ids)
    known, owner = index.known_positives(sample.pair_ids[batch])
    blocks = ((anchors, positives, positive_texts), (anchors, anchors, anchor_texts))
    blocks += ((positives, positives, positive_texts),)
    for row in range(len(batch)):
        threshold = anchors[row] @ positives[row]
        own = {anchor_texts[row], *known[owner == row]}
        for block, (left, right, texts) in enumerate(blocks):
            for column in range(len(batch)):
                if left[row] @ right[column] > threshold and texts[column] not in own:
                    yield block, row, column


def test_tables_and_glance_say_what_the_index_holds(index, sample):
    counts, worst_ids = positive_ranks(index, 9)
    worst = ScoredPairs.read(index, worst_ids)
    texts = excerpts(index, np.arange(index.manifest.rows["texts"]))
    rows = mislabelled(worst, texts).table.rows
    assert [row[0] for row in rows] == sorted(worst.ranks, reverse=True)
    for row in rows:
        pair = [texts[number] for number in worst.anchors].index(row[3])
        assert row[4:] == [texts[worst.positives[pair]], texts[worst.closest_ids[pair]]]
    facts = {fact.name: fact.value for fact in glance(index, counts, RandomBatches(64, 0.5, [])).facts}
    ranks = np.concatenate([table["positive_rank"].to_numpy() for table in index.scores()])
    assert facts["positive ranked first"] == f"{(ranks == 0).mean():.1%}"
    assert facts["positive outside the top 10"] == f"{(ranks >= 10).mean():.1%}"
    assert facts["pairs"] == f"{len(index)}"
    assert facts["false negatives in a random batch of 64"] == "6,048.0"
    above = (sample.closest_scores > sample.scores).mean()
    assert f"For {above:.1%} of 100 sampled pairs" in scores(sample, texts).note


def test_texts_of_an_index_are_read_and_cut(index, sample):
    texts = excerpts(index, np.array([*sample.anchors[:5], -1, *sample.positives[:5]]))
    assert set(texts) == {-1, *sample.anchors[:5].tolist(), *sample.positives[:5].tolist()}
    dataset = index.to_dataset()[sample.pair_ids[:5].tolist()]
    assert [texts[number] for number in sample.anchors[:5]] == dataset["anchor"]
    assert (clipped("short", 5), clipped("longer", 5)) == ("short", "longe…")


def test_hostile_texts_stand_in_the_page_as_text(index, sample):
    texts = dict.fromkeys(range(index.manifest.rows["texts"]), NASTY)
    curves = dict.fromkeys(CURVES, np.array([(1.0, 2.0), (2.0, np.nan)]))
    run = Run(NASTY, {"student": NASTY, **dict.fromkeys(COLUMNS, np.nan)}, curves)
    sections = [scores(sample, texts), mislabelled(sample, texts), training_runs([run])]
    page = render(NASTY, [*sections, Section("note", NASTY, NASTY)])
    assert "<img" not in page.partition("<script>")[0]
    figures = page.partition('<script type="application/json" id="figures">')[2].partition("</script>")[0]
    assert not set("<>&'") & set(figures)
    hover = [text for trace in json.loads(figures)["scores"]["data"] for text in trace.get("text", [])]
    assert len(hover) == len(sample)
    assert all(text.count("&lt;img src=x onerror='hack()'&gt;&amp;") == 3 and text.count("<") == 2 for text in hover)
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert page.count("<script>") == policy.count("'sha256-") == 2


def test_the_page_stays_small_whatever_the_texts(index):
    """As of a million-text index: all points, all rows, long texts full of markup, very many runs."""
    few = ScoredPairs.read(index, np.arange(len(index)))
    places = np.resize(np.arange(len(few)), 4_096)
    fields = {name: getattr(few, name)[places] for name in ScoredPairs.__dataclass_fields__}
    texts = dict.fromkeys(range(index.manifest.rows["texts"]), clipped(NASTY * 90, EXCERPT_CHARACTERS))
    curve = np.array([(step, step / 7) for step in range(3_000)], dtype=np.float32)
    run = Run(NASTY * 9, {"student": NASTY * 9, **dict.fromkeys(COLUMNS, 1.0)}, dict.fromkeys(CURVES, curve))
    table = mislabelled(ScoredPairs(**{name: values[:TABLE_ROWS] for name, values in fields.items()}), texts)
    sections = [scores(ScoredPairs(**fields), texts), table, table, training_runs([run] * MANY_RUNS)]
    assert len(render(NASTY, sections).encode()) < 6_000_000


def test_every_curve_of_a_run_is_drawn_and_the_best_run_is_on_top():
    curves = {curve: np.array([(1, number + 0.5), (2, number + 0.25)]) for number, curve in enumerate(CURVES)}
    afters = {"a": 0.2, "b": np.nan, "c": 0.7}
    section = training_runs([Run(name, dict.fromkeys(COLUMNS, after), curves) for name, after in afters.items()])
    traces = section.figure.data
    assert [(trace.name, trace.x.tolist(), trace.y.tolist()) for trace in traces[:3]] == [
        ("a", [1, 2], [number + 0.5, number + 0.25]) for number in range(3)
    ]
    assert len(traces) == 9
    assert [row[0] for row in section.table.rows] == ["c", "a", "b"]


def test_the_smallest_index_has_a_page_too(tmp_path, guide_folder):
    rows = [{"anchor": "red dog", "positive": "blue cat"}]
    folder = build_test_index(tmp_path / "one", rows, guide_folder, vector_dtype="int8")
    result = report(str(folder), settings=ReportSettings(out=tmp_path / "report.html"))
    assert result.data["bytes"] == (tmp_path / "report.html").stat().st_size
    index = GuideIndex.open(folder)
    sample = ScoredPairs.read(index, np.array([0]))
    assert (sample.closest_ids.tolist(), np.isnan(sample.closest_scores).tolist()) == ([-1], [True])
    assert [section.name for section in report_sections(index, [], 10)] == [
        "glance",
        "ranks",
        "mislabelled",
        "scores",
        "false-negatives",
    ]


def test_what_is_no_run_is_refused(tmp_path, index):
    for content in (None, "[]", "not json", '{"retrieval": {}}', '{"retrieval": 3, "log": []}'):
        if content:
            (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(InputError, match="A training run cannot be read"):
            read_runs([tmp_path], index)


def test_a_missing_library_and_bad_settings_are_refused(small_index, monkeypatch):
    with pytest.raises(SettingsError, match="out of range"):
        ReportSettings(sample=0)
    monkeypatch.setattr(report_module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install 'gistcache\\[report\\]'"):
        report(str(small_index))


def test_settings_and_command_load_nothing_heavy():
    code = f"import sys, gistcache.precompute.report.command; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
