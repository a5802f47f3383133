"""Hard negatives against a loop over stored neighbours, their drawing, and what a batch makes of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.texts import Texts
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.batches.collators import BatchCollator, BatchColumns
from gistcache.train.batches.hard_negatives import HardNegatives
from gistcache.train.batches.token_cache import TokenCache
from gistcache.train.loss.judges import NeighborhoodJudge, PositiveJudge
from gistcache.train.run.run import train_student
from gistcache.train.settings import HardNegativeSettings, LossSettings, TrainSettings
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

from tests.test_parity import StoredGuide

LABELS = np.arange(120)


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


def vector(index, text_id):
    return index.vectors(np.array([text_id]))[0].astype(np.float64)


def naive(index, skip_top, passes):
    """For each pair the stored neighbours that are not its anchor's known positives and that pass."""
    passing = []
    for table in index.scores():
        for row in table.to_pylist():
            ids = index.pairs(np.array([row["pair_id"]]), 0)
            anchor, positive = int(ids.anchors[0]), int(ids.positives[0])
            known = set(index.known_positives(np.array([row["pair_id"]]))[0].tolist())
            passing.append(
                [
                    each
                    for place, each in enumerate(row["neighbor_ids"])
                    if place >= skip_top
                    and int(index.content_ids(np.array([each]))[0]) not in known
                    and passes(anchor, positive, each)
                ]
            )
    return passing


def test_what_passes_is_what_a_loop_over_neighbours_lets_pass(index):
    def score(one, other):
        return float(vector(index, one) @ vector(index, other))

    def by_positive(anchor, positive, each):
        limit = score(anchor, positive)
        return score(anchor, each) <= limit - 0.05 * abs(limit)

    def related(anchor, positive, each):
        r = {x: float(index.density(np.array([x]))[0]) for x in (anchor, positive, each)}
        return 2 * (score(anchor, each) + score(positive, each)) - r[anchor] - r[positive] - 2 * r[each] <= -0.1

    percpos = HardNegativeSettings(
        hard_negatives=3, skip_top=1, negative_margin=0.05, negative_margin_strategy="relative"
    )
    cases = [
        (HardNegatives(index, percpos, NeighborhoodJudge(9.0), seed=0), naive(index, 1, by_positive)),
        (
            HardNegatives(index, HardNegativeSettings(hard_negatives=3), NeighborhoodJudge(-0.1), 0),
            naive(index, 0, related),
        ),
        (HardNegatives(index, HardNegativeSettings(hard_negatives=3), None, 0), naive(index, 0, lambda *_: True)),
    ]
    for hard, expected in cases:
        assert hard.counts.tolist() == [len(each) for each in expected]
        negatives, _ = hard.draw(LABELS)
        for row, passing in zip(negatives.tolist(), expected, strict=True):
            there = [each for each in row if each >= 0]
            assert len(set(there)) == len(there) == min(3, len(passing))
            assert set(there) <= set(passing)
    assert cases[0][0].counts.sum() < cases[2][0].counts.sum()
    assert "pairs have fewer than 3" in cases[0][0].summary(np.arange(len(cases[0][0].counts)))


def test_drawing_follows_seed_epoch_and_pair_alone(index):
    random, top = (
        HardNegatives(index, HardNegativeSettings(hard_negatives=4, draw=draw), None, 7) for draw in ("random", "top")
    )
    first = random.draw(LABELS)[0]
    assert np.array_equal(random.draw(LABELS[::-1][:50])[0], first[::-1][:50])
    random.epoch = 1
    assert not np.array_equal(random.draw(LABELS)[0], first)
    random.epoch = 0
    assert np.array_equal(random.draw(LABELS)[0], first)
    ordered = naive(index, 0, lambda *_: True)
    assert top.draw(LABELS)[0].tolist() == [(each + [-1] * 4)[:4] for each in ordered]
    weighted = HardNegatives(index, HardNegativeSettings(hard_negatives=4, draw="weighted"), None, 7)

    def mean_place(hard):
        places = [
            ordered[label].index(each)
            for hard.epoch in range(30)
            for label, row in enumerate(hard.draw(LABELS)[0].tolist())
            for each in row
            if each >= 0
        ]
        return np.mean(places)

    assert mean_place(top) < mean_place(weighted) < mean_place(random)


def test_the_loss_takes_them_as_the_peer_takes_negatives_of_the_data(index, student_folder):
    student = load_model(student_folder).eval()
    hard = HardNegatives(index, HardNegativeSettings(hard_negatives=2, draw="top"), None, 0)
    ids = index.pairs(LABELS, 1)
    labels, used = [], set()
    for label in LABELS:
        negatives = hard.draw(np.array([label]))[0][0]
        texts = {ids.anchors[label], ids.positives[label], ids.negatives[label, 0], *negatives}
        if len(texts) == 5 and -1 not in texts and not texts & used:
            labels.append(int(label))
            used |= texts
    assert len(labels) >= 6
    tokens = TokenCache.of(index, student, {"query": "", "document": ""})
    columns = BatchColumns(index, 1, hard)
    collator = BatchCollator(preprocess_fn=student.preprocess, tokens=tokens, columns=columns)
    batch = collator([{"label": label} for label in labels])
    label, guide_batch = batch.pop("label"), batch.pop("anchor_guide_batch")
    assert label.tolist() == labels
    features = [
        {name: batch[f"{column}_{name}"] for name in ("input_ids", "attention_mask")} for column in columns.names
    ]
    assert len(features) == 5
    every = {text: k for k, text in enumerate(Texts(index).take(np.arange(index.manifest.rows["texts"])).to_pylist())}
    peer = GISTEmbedLoss(student, StoredGuide(student, index, every), temperature=0.05)
    peer.sim_matrix = lambda left, right: left @ right.T  # as in the parity test
    ours = GuidedContrastiveLoss(student, index, temperature=0.05, known_positives=False)
    rows = index.to_dataset(1)
    negatives = Texts(index).take(np.concatenate([ids.negatives[labels, 0], hard.draw(np.array(labels))[0].T.ravel()]))
    theirs = [dict(features[0]), features[1], student.preprocess(negatives.to_pylist())]
    features[0]["guide_batch"] = guide_batch
    assert ours(features, label) == ours(features, label)  # MatryoshkaLoss gives the same features once a dimension
    assert ours(features, label).item() == pytest.approx(peer(theirs, labels=None).item(), rel=1e-5)
    texts = BatchCollator(preprocess_fn=student.preprocess, columns=columns)
    untokenised = texts([rows[each] for each in labels])
    assert torch.equal(untokenised["label"], label)
    assert torch.equal(untokenised["anchor_guide_batch"].hard_negatives, guide_batch.hard_negatives)
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(untokenised[name], value), name


def test_a_run_with_tokens_cached_or_not_is_the_same_run(tmp_path, small_index, student_folder):
    objective = LossSettings(mining=HardNegativeSettings(hard_negatives=3, negative_margin=0.05), temperature=0.05)
    fixed = {"batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "max_steps": 9, "seed": 3, "logging_steps": 3}
    losses = []
    for cached in (True, False):
        settings = TrainSettings(
            index=small_index,
            student=str(student_folder),
            out=tmp_path / str(cached),
            token_cache=cached,
            objective=objective,
            **fixed,
        )
        losses.append(train_student(settings)["training_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    few = pl.read_parquet(tmp_path / "True" / "few_negatives.parquet")
    counts = HardNegatives(GuideIndex.open(small_index), objective.mining, None, 3).counts
    assert few.height
    assert dict(zip(few["pair_id"], few["negatives_found"], strict=True)) == {
        label: count for label, count in enumerate(counts.tolist()) if count < 3
    }


def test_more_than_is_stored_is_refused(index):
    with pytest.raises(SettingsError, match="holds 10 neighbours"):
        HardNegatives(index, HardNegativeSettings(hard_negatives=9, skip_top=2), PositiveJudge(), 0)
    with pytest.raises(SettingsError, match="-1 is out of range"):
        HardNegativeSettings(hard_negatives=-1)
