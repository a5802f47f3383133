"""Several guides: texts found in another index, and votes on known scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import Blocks
from gistcache.shared.errors import SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.texts import Texts
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.loss.guide_lookup import Guides
from gistcache.train.loss.panel import agreed, matched_ids, score_spread
from gistcache.train.loss.statistics import MaskCounts

from tests.conftest import build_test_index, make_model, random_pairs

ROWS = random_pairs(60, seed=5, negatives=1)
VOTES = ("any", "all", "mean")


@pytest.fixture(scope="module")
def two(tmp_path_factory, guide_folder):
    """An index, and one by another guide of more pairs in another order and parts of another size."""
    folder = tmp_path_factory.mktemp("two")
    other_guide = make_model(folder / "other", dim=24, seed=9)
    more = random_pairs(20, seed=6) + ROWS[::-1]
    first = build_test_index(folder / "first", ROWS, guide_folder, shard_rows=50)
    return GuideIndex.open(first), GuideIndex.open(
        build_test_index(folder / "second", more, other_guide, shard_rows=30)
    )


def test_texts_are_found_by_what_they_say(two):
    first, other = two
    ids = np.arange(first.manifest.rows["texts"])
    held = matched_ids(first, other)
    assert not np.array_equal(ids, held)
    assert Texts(first).take(ids).to_pylist() == Texts(other).take(held).to_pylist()


def test_each_guide_gives_its_own_vectors_of_the_same_texts(two, tmp_path, guide_folder):
    labels = np.array([4, 9, 23])
    batch = Guides(two).look_up(labels, 1, torch.device("cpu"))
    texts = [Texts(two[0]).take(ids).to_pylist() for ids in two[0].pairs(labels, 0)[:2]]
    model = load_model(guide_folder)
    for vectors, role in zip(batch.views[0].vectors, texts, strict=False):
        expected = torch.from_numpy(model.encode(role, normalize_embeddings=True))
        assert torch.allclose(vectors, expected, atol=2e-3)
    assert batch.views[1].vectors.anchors.shape == (3, 24)
    lacking = GuideIndex.open(build_test_index(tmp_path / "lacking", ROWS[:30], guide_folder))
    with pytest.raises(SettingsError, match="texts are not in the other index"):
        Guides([two[0], lacking])


def test_votes_on_standardised_distances():
    one = Blocks(torch.tensor([[0.3, -0.1, 0.2]]), None, None, torch.tensor([[-0.3]]))
    two = Blocks(torch.tensor([[-0.2, -0.4, 0.1]]), None, None, torch.tensor([[0.1]]))
    leaves = {vote: agreed([one, two], [3.0, 0.5], vote).each(lambda block: block > 0) for vote in VOTES}
    assert leaves["any"].joined().tolist() == [[True, False, True, True]]
    assert leaves["all"].joined().tolist() == [[False, False, True, False]]
    # 0.3 / 3 - 0.2 / 0.5 is below 0 although 0.3 - 0.2 is above it.
    assert leaves["mean"].joined().tolist() == [[False, False, True, True]]
    assert leaves["any"].aa is None


def test_the_spread_is_that_of_random_texts(two):
    index = two[0]
    vectors = index.vectors(np.arange(index.manifest.rows["texts"])).astype(np.float64)
    scores = vectors @ vectors.T
    expected = scores[~np.eye(len(scores), dtype=bool)].std()
    assert score_spread(index) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("softness", [0.0, 0.1])
def test_two_guides_alike_do_what_one_does(two, student_folder, softness):
    student = load_model(student_folder).eval()
    rows = two[0].to_dataset()[:16]
    features = [student.preprocess(rows[name]) for name in ("anchor", "positive", "negative_1")]
    labels = torch.tensor(rows["label"])
    alone = GuidedContrastiveLoss(student, two[0], judge_softness=softness)
    for vote in VOTES:
        twice = GuidedContrastiveLoss(student, [two[0], two[0]], vote=vote, judge_softness=softness)
        assert twice(features, labels).item() == pytest.approx(alone(features, labels).item(), abs=1e-6)
        assert twice.cells.counts() == alone.cells.counts()
        alone.cells.start_from(MaskCounts())
    counts = {}
    for vote in VOTES:
        both = GuidedContrastiveLoss(student, two, vote=vote, judge_softness=softness)
        both(features, labels)
        counts[vote] = both.cells.counts().removed
    alone(features, labels)
    assert counts["all"] < alone.cells.counts().removed < counts["any"]
    assert counts["all"] <= counts["mean"] <= counts["any"]
