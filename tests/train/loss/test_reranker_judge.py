"""A reranker's judgement in a batch against a loop over candidates, and in the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.precompute.rerank.rescore import rescore_index
from gistcache.precompute.rerank.settings import RescoreSettings
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.reranker_scores import RerankerScores
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.loss.guide_lookup import look_up
from gistcache.train.loss.judges import NeighborhoodJudge, PositiveJudge
from gistcache.train.loss.reranker_judge import RerankerJudge, overrule
from gistcache.train.settings import LossSettings, TrainSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def index(small_index):
    return GuideIndex.open(small_index)


@pytest.fixture(scope="module")
def reranker_scores(tmp_path_factory, index, reranker_folder):
    out = tmp_path_factory.mktemp("rescored") / "out"
    rescore_index(index, RescoreSettings(reranker=str(reranker_folder), out=out, device="cpu"))
    return RerankerScores.open(out, index)


def read_with(index, reranker_scores):
    """(pair, document) -> the reranker's score, from the files alone; and each pair's own."""
    scores_of, own = {}, {}
    pairs = (row for table in index.scores() for row in table.to_pylist())
    scored = (row for table in reranker_scores.tables() for row in table.to_pylist())
    for stored, row in zip(pairs, scored, strict=True):
        label = row["pair_id"]
        negatives = index.pairs(np.array([label])).negatives[0]
        documents = [*stored["neighbor_ids"], *negatives[negatives >= 0]]
        scores = [*row["neighbor_scores"], *row["negative_scores"]]
        scores_of |= {(label, int(document)): score for document, score in zip(documents, scores, strict=True)}
        own[label] = row["positive_score"]
    return scores_of, own


@pytest.mark.parametrize("judge", [PositiveJudge(), NeighborhoodJudge(-0.5)])
@pytest.mark.parametrize(("margin", "strategy"), [(0.1, "absolute"), (0.2, "relative")])
def test_only_candidates_that_it_has_read_are_judged_by_it(index, reranker_scores, judge, margin, strategy):
    labels = np.random.default_rng(1).permutation(120)[:40]
    hard = index.pairs(labels, 0).positives[::-1]  # negatives of this epoch: neighbours of some rows, and of others not
    batch = look_up(index, labels, hard[:, None], 3, CPU, RerankerJudge(reranker_scores, margin, strategy))
    assert batch.reranked
    rows = torch.tensor([3, 17, 4, 39])
    before = judge.excess(batch.guide, rows, contrast_anchors=True, contrast_positives=True)
    copy = before.map(torch.clone)
    after = overrule(before, batch.reranked, rows)
    assert all(torch.equal(*each) for each in zip(before, copy, strict=True))
    assert torch.equal(after.aa, before.aa)
    assert torch.equal(after.pp, before.pp)
    read, own = read_with(index, reranker_scores)
    ids = index.pairs(labels, 3)
    negatives = np.concatenate([ids.negatives, hard[:, None]], axis=1).T.ravel()
    replaced = 0
    for block, columns in (("ap", ids.positives), ("an", negatives)):
        expected = getattr(before, block).clone()
        for place, row in enumerate(rows.tolist()):
            score = own[labels[row]]
            limit = score - (margin if strategy == "absolute" else margin * abs(score))
            for column, document in enumerate(columns):
                if (labels[row], document) in read:
                    expected[place, column] = read[labels[row], document] - limit
                    replaced += 1
        assert torch.allclose(getattr(after, block), expected, atol=1e-6)
    assert 12 < replaced < 4 * 200


def test_the_loss_uses_it_whatever_the_size_of_the_slices(index, reranker_scores, student_folder, monkeypatch):
    student = load_model(student_folder).eval()
    rows = index.to_dataset(2)[:24]
    features = [student.preprocess(rows[name]) for name in ("anchor", "positive", "negative_1", "negative_2")]
    labels = torch.tensor(rows["label"])
    values, masked = [], []
    for scores, size in ((None, 2**22), (reranker_scores, 2**22), (reranker_scores, 500)):
        monkeypatch.setattr("gistcache.train.loss.guided_loss.SLICE_CANDIDATES", size)
        loss = GuidedContrastiveLoss(student, index, temperature=0.05, reranker_scores=scores)
        values.append(loss(features, labels).item())
        masked.append(loss.statistics.counts()[:2])
    assert values[0] != pytest.approx(values[1], rel=1e-3)
    assert values[1] == pytest.approx(values[2], rel=1e-6)
    assert masked[0] != masked[1] == masked[2]
    assert loss.get_config_dict()["reranker"].endswith("model")


def test_unguided_training_takes_no_reranker(tmp_path):
    with pytest.raises(SettingsError, match="uses no reranker"):
        TrainSettings(student="s", rescored=tmp_path, objective=LossSettings(loss="unguided"))
