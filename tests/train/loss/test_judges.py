"""The judge of pairs by pairs against its formula candidate by candidate, and the settings that fit together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import PairVectors
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.loss.judges import GuideView, NeighborhoodJudge, make_judge, relatedness, usual_relatedness
from gistcache.train.settings import JudgeSettings


def view_of(pairs: int, negatives: int, seed: int) -> GuideView:
    """A batch of random unit vectors and density."""
    generator = torch.Generator().manual_seed(seed)

    def unit(rows):
        return torch.nn.functional.normalize(torch.randn(rows, 12, generator=generator))

    vectors = PairVectors(unit(pairs), unit(pairs), unit(negatives))
    return GuideView(vectors, PairVectors(*(torch.rand(len(each), generator=generator) for each in vectors)))


def naive(view: GuideView) -> tuple[np.ndarray, np.ndarray]:
    """The formula, one candidate at a time."""
    (a, p, n), (ra, rp, rn) = ([each.double().numpy() for each in side] for side in view)
    pairs, negatives = np.empty((len(a), len(a))), np.empty((len(a), len(n)))
    for i in range(len(a)):
        for j in range(len(a)):
            scores = a[i] @ p[j] + a[j] @ p[i] + a[i] @ a[j] + p[i] @ p[j]
            pairs[i, j] = scores - ra[i] - rp[i] - ra[j] - rp[j]
        for k in range(len(n)):
            with_anchor = a[i] @ n[k] - (ra[i] + rn[k]) / 2
            with_positive = p[i] @ n[k] - (rp[i] + rn[k]) / 2
            negatives[i, k] = 2 * (with_anchor + with_positive)
    return pairs, negatives


def test_relatedness_is_the_sum_of_four_scores_on_the_scale_of_each_text():
    view = view_of(9, 5, seed=1)
    of_batch = relatedness(view, torch.arange(9))
    for ours, theirs in zip(of_batch, naive(view), strict=True):
        assert np.allclose(ours.numpy(), theirs, atol=1e-5)
    assert torch.allclose(of_batch[0], of_batch[0].T, atol=1e-6)
    assert torch.allclose(relatedness(view, torch.tensor([4, 2]))[1], of_batch[1][[4, 2]], atol=1e-6)


def test_candidates_between_two_pairs_are_masked_together():
    view = view_of(9, 5, seed=2)
    of_pairs, of_negatives = naive(view)
    rows = torch.arange(3, 9)
    excess = NeighborhoodJudge(-2.5).excess(view, rows, contrast_anchors=True, contrast_positives=True)
    masked = excess.map(lambda block: block > 0)
    expected = torch.from_numpy(of_pairs[3:] > -2.5)
    assert 0 < expected.sum() < expected.numel()
    for block in (masked.ap, masked.aa, masked.pp):
        assert torch.equal(block, expected)
    assert torch.equal(masked.an, torch.from_numpy(of_negatives[3:] > -2.5))
    without = NeighborhoodJudge(-2.5).excess(view, rows, contrast_anchors=False, contrast_positives=False)
    assert without.aa.shape == without.pp.shape == (6, 0)


def test_the_threshold_is_that_of_the_middle_pair(small_index):
    index = GuideIndex.open(small_index)
    ids = index.pairs(np.arange(len(index)), 0)
    related = []
    for anchor, positive in zip(ids.anchors, ids.positives, strict=True):
        vectors, density = index.vectors(np.array([anchor, positive])), index.density(np.array([anchor, positive]))
        related.append(4 * (float(vectors[0].astype(float) @ vectors[1].astype(float)) - density.mean()))
    assert usual_relatedness(index) == pytest.approx(np.median(related), abs=1e-5)
    judge = make_judge(JudgeSettings(judge="neighborhood", margin=0.25), index)
    assert judge.threshold == pytest.approx(np.median(related) - 0.25, abs=1e-5)
    lower = make_judge(JudgeSettings(judge="neighborhood", judge_quantile=0.1), index)
    assert (np.array(related) < lower.threshold).mean() == pytest.approx(0.1, abs=0.01)


def test_the_loss_masks_what_the_judge_calls_false_negatives(small_index, student_folder):
    from gistcache.shared.models.load import load_model

    index, student = GuideIndex.open(small_index), load_model(student_folder).eval()
    rows = index.to_dataset(0).select(range(12))
    labels = torch.tensor(rows["label"][:])

    def value(**settings):
        loss = GuidedContrastiveLoss(student, index, temperature=0.05, **settings)
        features = [student.preprocess(list(rows[name])) for name in ("anchor", "positive")]
        return loss(features, labels).item(), loss.statistics.counts()[:2]

    unguided, _ = value(loss="unguided")
    nothing, (removed, candidates) = value(judge="neighborhood", judge_threshold=100.0)
    assert nothing == pytest.approx(unguided)
    assert removed == 0 < candidates
    everything, (removed, candidates) = value(judge="neighborhood", judge_threshold=-100.0)
    assert everything == pytest.approx(0, abs=1e-6)
    assert removed == candidates
    some, (removed, candidates) = value(judge="neighborhood")
    assert (0 < some < unguided) == (0 < removed < candidates)
    assert value(judge="neighborhood", judge_quantile=0.0)[1][0] > removed


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"judge_threshold": 0.5}, "--judge neighborhood"),
        ({"judge": "neighborhood", "margin": 0.1, "margin_strategy": "relative"}, "absolute"),
        ({"judge": "oracle"}, "positive or neighborhood"),
        ({"margin": 0.1, "margin_strategy": "squared"}, "absolute or relative"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, advice):
    with pytest.raises(SettingsError) as error:
        JudgeSettings(**settings)
    assert advice in str(error.value)
