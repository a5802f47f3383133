"""Mined files through the product's own reader, against what training draws and what the index stores."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from gistcache.precompute.rerank.rescore import rescore_index
from gistcache.precompute.rerank.settings import RescoreSettings
from gistcache.shared.data.pairs import Columns as InputColumns
from gistcache.shared.data.pairs import read_pairs
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.texts import Texts
from gistcache.train.batches.collators import BatchColumns
from gistcache.train.batches.hard_negatives import HardNegatives
from gistcache.train.batches.mine import MinedPair, flag_embedding_rows, mine_index
from gistcache.train.batches.mine_command import mine
from gistcache.train.loss.judges import PositiveJudge
from gistcache.train.run import run
from gistcache.train.settings import HardNegativeSettings, JudgeSettings, LossSettings, MineSettings, TrainSettings

from tests.conftest import build_test_index, random_pairs

MINING = HardNegativeSettings(hard_negatives=3, skip_top=1, draw="weighted")
JUDGING = JudgeSettings(margin=0.02)


@pytest.fixture(scope="module")
def index(tmp_path_factory, guide_folder):
    """90 pairs of 60 anchors, in shards that cut an anchor's pairs apart."""
    rows = random_pairs(60, seed=3)
    more = [row | {"positive": other["positive"]} for row, other in zip(rows, rows[7:37], strict=False)]
    folder = tmp_path_factory.mktemp("mine")
    return GuideIndex.open(build_test_index(folder / "index", rows + more, guide_folder, shard_rows=25, neighbors=30))


@pytest.fixture(scope="module")
def rescored(tmp_path_factory, index, reranker_folder):
    out = tmp_path_factory.mktemp("rescored") / "out"
    return rescore_index(index, RescoreSettings(reranker=str(reranker_folder), out=out, device="cpu")).root


def negatives_of_training(index, seed=0, epoch=0):
    """Of each pair: anchor, positive, and the texts that training draws, as many as there are."""
    labels = np.arange(len(index))
    hard = HardNegatives(index, MINING, PositiveJudge(0.02), seed)
    hard.epoch = epoch
    texts, ids = Texts(index), index.pairs(labels, 0)
    anchors, positives = (texts.take(each).to_pylist() for each in (ids.anchors, ids.positives))
    negatives = [texts.take(row[row >= 0]).to_pylist() if (row >= 0).any() else [] for row in hard.draw(labels)[0]]
    return list(zip(anchors, positives, negatives, strict=True))


def read_back(path):
    return [(pair.anchor, pair.positive, list(pair.negatives)) for pair in read_pairs([str(path)], InputColumns())]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_n_tuples_hold_what_training_draws(tmp_path, index, suffix):
    out = tmp_path / f"mined.{suffix}"
    settings = MineSettings(out=out, mining=MINING, judging=JUDGING, seed=5, epoch=2)
    result = mine(str(index.layout.root), settings=settings)
    expected = [row for row in negatives_of_training(index, 5, 2) if len(row[2]) == 3]
    lacking = len(index) - len(expected)
    assert 0 < lacking < len(index)
    assert result.data == {"out": str(out), "rows": len(expected), "left_out": lacking}
    assert f"{lacking} pairs have fewer than 3 negatives and are left out" in str(result.text[0])
    assert read_back(out) == expected
    names = pq.read_schema(out).names if suffix == "parquet" else list(json.loads(out.read_text().splitlines()[0]))
    assert names == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]


def test_a_positive_of_several_pairs_stands_once():
    pairs = [MinedPair(0, "a", "p", 0.7, ["n"], [0.5]), MinedPair(0, "a", "p", 0.7, ["m"], [0.4])]
    scores = {"pos_scores": [0.7], "neg_scores": [0.5, 0.4]}
    assert list(flag_embedding_rows(pairs)) == [{"query": "a", "pos": ["p"], "neg": ["n", "m"], **scores}]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_flagembedding_rows_join_the_pairs_of_an_anchor(tmp_path, index, suffix):
    out = tmp_path / f"mined.{suffix}"
    mine_index(index, MineSettings(out=out, format="flagembedding", mining=MINING, judging=JUDGING))
    joined = {}
    for anchor, positive, negatives in negatives_of_training(index):
        pos, neg = joined.setdefault(anchor, ([], {}))
        pos.append(positive)
        neg.update(dict.fromkeys(negatives))
    joined = {anchor: (pos, list(neg)) for anchor, (pos, neg) in joined.items() if neg}
    assert sum(len(pos) > 1 for pos, _ in joined.values()) > 5
    assert read_back(out) == [(a, each, neg) for a, (pos, neg) in joined.items() for each in pos]
    rows = pq.read_table(out).to_pylist() if suffix == "parquet" else map(json.loads, out.read_text().splitlines())
    texts = Texts(index).take(np.arange(index.manifest.rows["texts"])).to_pylist()
    scores = {}
    for row in (row for table in index.scores() for row in table.to_pylist()):
        ids = index.pairs(np.array([row["pair_id"]]), 0)
        anchor = texts[ids.anchors[0]]
        documents = zip(
            [*ids.positives, *row["neighbor_ids"]], [row["positive_score"], *row["neighbor_scores"]], strict=True
        )
        scores |= {(anchor, texts[document]): np.float32(score) for document, score in documents}
    for row in rows:
        assert set(row) == {"query", "pos", "neg", "pos_scores", "neg_scores"}
        for each in ("pos", "neg"):
            assert len(row[each]) == len(row[f"{each}_scores"])
            for text, score in zip(row[each], row[f"{each}_scores"], strict=True):
                assert np.float32(score) == pytest.approx(scores[row["query"], text], abs=1e-6)


@pytest.mark.parametrize("with_reranker", [False, True])
def test_training_with_the_same_flags_gets_the_same_negatives(
    tmp_path, index, student_folder, rescored, with_reranker, monkeypatch
):
    of_run = {}

    class Watched(BatchColumns):
        def of(self, labels):
            batch, columns = super().of(labels)
            hard = batch["anchor_guide_batch"].hard_negatives.tolist()
            of_run.update(zip(labels.tolist(), hard, strict=True))
            return batch, columns

    monkeypatch.setattr("gistcache.train.run.trainer.BatchColumns", Watched)
    scores = rescored if with_reranker else None
    objective = LossSettings(judge="neighborhood", judge_threshold=3.0, margin=0.05, mining=MINING, temperature=0.05)
    settings = TrainSettings(
        index=index.layout.root, student=str(student_folder), out=tmp_path / "run", seed=4, batch_size=8,
        device="cpu", max_steps=5, objective=objective, rescored=scores,
    )  # fmt: skip
    metrics = run.train_student(settings)
    assert ("rescored" in metrics["run"]) == with_reranker
    out = tmp_path / "mined.parquet"
    judging = JudgeSettings(judge="neighborhood", judge_threshold=3.0, margin=0.05)
    mine_index(index, MineSettings(out=out, mining=MINING, judging=judging, seed=4, rescored=scores))
    texts, full = Texts(index), [label for label, row in sorted(of_run.items()) if min(row) >= 0]
    assert len(of_run) >= 40
    assert len(full) > 5
    ids = index.pairs(np.array(full), 0)
    mined = {(anchor, positive): negatives for anchor, positive, negatives in read_back(out)}
    for label, *pair in zip(full, *(texts.take(each).to_pylist() for each in ids[:2]), strict=True):
        assert mined[tuple(pair)] == texts.take(np.array(of_run[label])).to_pylist()


def test_mined_by_a_reranker_are_those_it_scores_below_the_positive(tmp_path, index, rescored, reranker_folder):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(reranker_folder), device="cpu")
    out = tmp_path / "mined.jsonl"
    mining = HardNegativeSettings(
        hard_negatives=2, draw="top", negative_margin=0.05, negative_margin_strategy="relative"
    )
    mine_index(index, MineSettings(out=out, format="flagembedding", mining=mining, rescored=rescored))
    rows = {row["query"]: row for row in map(json.loads, out.read_text().splitlines())}
    texts = Texts(index).take(np.arange(index.manifest.rows["texts"])).to_pylist()
    stored = [row for table in index.scores() for row in table.to_pylist()]
    expected = {}
    for label, row in enumerate(stored):
        ids = index.pairs(np.array([label]), 0)
        anchor, positive = texts[ids.anchors[0]], texts[ids.positives[0]]
        known = {texts[each] for each in index.known_positives(np.array([label]))[0]}
        limit = 0.95 * float(model.predict([(anchor, positive)])[0])
        documents = [texts[each] for each in row["neighbor_ids"]]
        scored = sorted(
            zip(model.predict([(anchor, each) for each in documents]), documents, strict=True), reverse=True
        )
        negatives_of_pair = [(text, float(score)) for score, text in scored if score <= limit and text not in known][:2]
        expected.setdefault(anchor, {}).update(negatives_of_pair)
    expected = {anchor: negatives for anchor, negatives in expected.items() if negatives}
    assert list(rows) == list(expected)
    for anchor, negatives in expected.items():
        assert dict(zip(rows[anchor]["neg"], rows[anchor]["neg_scores"], strict=True)) == pytest.approx(
            negatives, abs=1e-5
        )


def test_what_cannot_be_written_leaves_no_file(tmp_path, index):
    none = HardNegativeSettings(hard_negatives=12, negative_margin=3.0, negative_margin_strategy="absolute")
    with pytest.raises(SettingsError, match="No row has enough"):
        mine_index(index, MineSettings(out=tmp_path / "none.parquet", mining=none))
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="suffix"):
        MineSettings(out=tmp_path / "mined.csv", mining=MINING)
    with pytest.raises(SettingsError, match="number of hard negatives is missing"):
        MineSettings(out=tmp_path / "mined.jsonl")
