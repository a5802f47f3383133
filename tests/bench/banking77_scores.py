"""Banking77 as training pairs, and as MTEB scores it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

QUESTIONS_PER_INTENT = 8
DRAW_SEED = 42


class Question(NamedTuple):
    text: str
    intent: str


def read_questions(path: Path) -> list[Question]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Question(row["text"], row["category"]) for row in csv.DictReader(file)]


def make_pairs(questions: list[Question], seed: int) -> list[dict[str, str]]:
    """Each question with another, different one of its intent, in random order.

    The questions of an intent stand in a random circle and each takes the next one: every question is an anchor once
    and a positive once.
    """
    random = np.random.default_rng(seed)
    rows: list[dict[str, str]] = []
    for intent in sorted({question.intent for question in questions}):
        circle = _circle([question.text for question in questions if question.intent == intent], random)
        after = circle[1:] + circle[:1]
        rows += [{"anchor": text, "positive": other} for text, other in zip(circle, after, strict=True)]
    return [rows[i] for i in random.permutation(len(rows))]


def _circle(texts: list[str], random: np.random.Generator) -> list[str]:
    """The texts in random order, no two neighbours the same but for white space."""
    while True:
        order = [texts[i] for i in random.permutation(len(texts))]
        if all(a.strip() != b.strip() for a, b in zip(order, order[1:] + order[:1], strict=True)):
            return order


def accuracy(model: Any, train: list[Question], test: list[Question], draws: int) -> tuple[float, float]:
    """Mean and standard deviation, over the draws, of the accuracy on the test questions, in percent.

    As MTEB's ``Banking77Classification``: logistic regression on the embeddings of 8 training questions an intent. The
    draws are the same for every model.
    """
    intents = np.array([question.intent for question in train])
    draws_of_rows = [_draw(intents, DRAW_SEED + number) for number in range(draws)]
    used = np.unique(np.concatenate(draws_of_rows))
    known = model.encode([train[i].text for i in used], show_progress_bar=False)
    embedded = model.encode([question.text for question in test], show_progress_bar=False)
    answers = [question.intent for question in test]
    accuracies = []
    for rows in draws_of_rows:
        classifier = LogisticRegression(max_iter=100).fit(known[np.searchsorted(used, rows)], intents[rows])
        accuracies.append(100 * classifier.score(embedded, answers))
    return float(np.mean(accuracies)), float(np.std(accuracies))


def _draw(intents: np.ndarray, seed: int) -> np.ndarray:
    """Rows of ``QUESTIONS_PER_INTENT`` questions of every intent."""
    random = np.random.default_rng(seed)
    of_intent = (np.flatnonzero(intents == intent) for intent in np.unique(intents))
    return np.concatenate([random.choice(rows, QUESTIONS_PER_INTENT, replace=False) for rows in of_intent])
