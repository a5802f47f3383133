"""The loss against sentence-transformers' own GISTEmbedLoss and CachedGISTEmbedLoss, and against a naive loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss, GISTEmbedLoss
from torch import nn

TOLERANCE = 1e-5
MARGINS = [("absolute", 0.0), ("absolute", 0.02), ("relative", 0.05)]
CONTRASTS = list(itertools.product([True, False], repeat=2))


class StoredGuide(nn.Module):
    """The guide as the peers take it, answering with the vectors that the index stores for the texts it is given."""

    def __init__(self, student, index: GuideIndex, texts: dict[str, int]) -> None:
        super().__init__()
        self.tokenizer, self.max_seq_length = student.tokenizer, student.max_seq_length
        self.index, self.device = index, student.device
        self.ids = {tuple(self._tokens(student, text)): number for text, number in texts.items()}

    @staticmethod
    def _tokens(student, text):
        return student.preprocess([text])["input_ids"][0].tolist()

    def forward(self, features):
        mask = features["attention_mask"].bool()
        rows = [tuple(ids[present].tolist()) for ids, present in zip(features["input_ids"], mask, strict=True)]
        vectors = self.index.vectors(np.array([self.ids[row] for row in rows]))
        return {"sentence_embedding": torch.from_numpy(vectors).float()}


@pytest.fixture(scope="module")
def bench(small_index, student_folder):
    """An index, a student without dropout, and the rows of a batch in which no text stands twice."""
    index = GuideIndex.open(small_index)
    student = load_model(student_folder).eval()
    rows = index.to_dataset()
    batch, seen = [], set()
    for row in rows:
        texts = {value for name, value in row.items() if name != "label"}
        if len(texts) == len(row) - 1 and not texts & seen:
            batch.append(row)
            seen |= texts
    assert len(batch) >= 16
    return index, student, batch


def features_of(student, batch, negatives):
    names = ["anchor", "positive", *(f"negative_{k + 1}" for k in range(negatives))]
    return [student.preprocess([row[name] for row in batch]) for name in names]


def value_and_gradient(student, loss, features, labels):
    student.zero_grad()
    value = loss(features, labels)
    value.backward()
    gradient = torch.cat([p.grad.ravel() for p in student.parameters() if p.grad is not None])
    return value.item(), gradient.clone()


def stored_guide(index, student, batch):
    texts = {}
    for row in batch:
        ids = index.pairs(np.array([row["label"]]))
        texts |= {row["anchor"]: ids.anchors[0], row["positive"]: ids.positives[0]}
        texts |= {row[f"negative_{k + 1}"]: ids.negatives[0, k] for k in range(3)}
    return StoredGuide(student, index, texts)


@pytest.mark.parametrize("peer", [GISTEmbedLoss, CachedGISTEmbedLoss])
@pytest.mark.parametrize(("strategy", "margin"), MARGINS)
@pytest.mark.parametrize(("anchors", "positives"), CONTRASTS)
@pytest.mark.parametrize("negatives", [0, 1])
def test_equals_the_peers(bench, peer, strategy, margin, anchors, positives, negatives):
    index, student, batch = bench
    settings = {
        "temperature": 0.05,
        "margin": margin,
        "margin_strategy": strategy,
        "contrast_anchors": anchors,
        "contrast_positives": positives,
    }
    labels = torch.tensor([row["label"] for row in batch])
    ours = GuidedContrastiveLoss(student, index, known_positives=False, **settings)
    theirs = peer(student, stored_guide(index, student, batch), **settings)
    # A guide score is a dot product of vectors rounded to float16, whose length is one only to 1e-4: the peer's cosine
    # would move a threshold by as much. The student's vectors are of length one either way.
    theirs.sim_matrix = lambda left, right: left @ right.T
    value, gradient = value_and_gradient(student, ours, features_of(student, batch, negatives), labels)
    expected, expected_gradient = value_and_gradient(student, theirs, features_of(student, batch, negatives), labels)
    assert value == pytest.approx(expected, abs=TOLERANCE)
    assert torch.allclose(gradient, expected_gradient, atol=TOLERANCE, rtol=1e-4)
    counts = ours.statistics.counts()
    assert 0 < counts.masked < counts.candidates


def naive_loss(student_vectors, guide_vectors, temperature, margin, strategy):
    """The formula of the paper, candidate by candidate, with three negatives a pair."""
    anchors, positives, negatives = student_vectors
    guide_anchors, guide_positives, guide_negatives = guide_vectors
    losses = []
    for i in range(len(anchors)):
        score = float(guide_anchors[i] @ guide_positives[i])
        limit = score - margin if strategy == "absolute" else score - abs(score) * margin
        scores = [anchors[i] @ positives[i]]
        for j in range(len(anchors)):
            if j != i:
                if float(guide_anchors[i] @ guide_positives[j]) <= limit:
                    scores.append(anchors[i] @ positives[j])
                if float(guide_anchors[i] @ guide_anchors[j]) <= limit:
                    scores.append(anchors[i] @ anchors[j])
                if float(guide_positives[i] @ guide_positives[j]) <= limit:
                    scores.append(positives[i] @ positives[j])
            for k in range(negatives.shape[1]):
                if float(guide_anchors[i] @ guide_negatives[j, k]) <= limit:
                    scores.append(anchors[i] @ negatives[j, k])
        logits = torch.stack(scores) / temperature
        losses.append(torch.logsumexp(logits, 0) - logits[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("strategy", "margin"), MARGINS)
def test_three_negatives_equal_a_naive_loop(bench, strategy, margin):
    index, student, batch = bench
    labels = torch.tensor([row["label"] for row in batch])
    ours = GuidedContrastiveLoss(
        student, index, temperature=0.05, margin=margin, margin_strategy=strategy, known_positives=False
    )
    value, gradient = value_and_gradient(student, ours, features_of(student, batch, 3), labels)

    student.zero_grad()
    columns = [
        nn.functional.normalize(student(features)["sentence_embedding"]) for features in features_of(student, batch, 3)
    ]
    ids = index.pairs(labels.numpy())
    guide = [torch.from_numpy(index.vectors(part)).float() for part in (ids.anchors, ids.positives)]
    guide.append(torch.from_numpy(index.vectors(ids.negatives.ravel())).float().view(len(batch), 3, -1))
    expected = naive_loss((*columns[:2], torch.stack(columns[2:], 1)), guide, 0.05, margin, strategy)
    expected.backward()
    expected_gradient = torch.cat([p.grad.ravel() for p in student.parameters() if p.grad is not None])
    assert value == pytest.approx(expected.item(), abs=TOLERANCE)
    assert torch.allclose(gradient, expected_gradient, atol=TOLERANCE, rtol=1e-4)
