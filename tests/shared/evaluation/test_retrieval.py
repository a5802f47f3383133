"""Retrieval and STS figures against values known beforehand."""

from __future__ import annotations

import csv

import numpy as np
import polars as pl
import pytest
import torch
from gistcache.shared.errors import InputError
from gistcache.shared.evaluation.benchmarks import evaluate_sts
from gistcache.shared.evaluation.retrieval import RetrievalSet
from gistcache.shared.models.load import load_model
from scipy.stats import spearmanr

from tests.conftest import random_texts, write_jsonl


def test_metrics_are_those_of_a_plain_ranking(tmp_path, guide_folder):
    model = load_model(guide_folder)
    texts = random_texts(40, seed=30)
    rows = [{"anchor": texts[i], "positive": texts[20 + i]} for i in range(20)]
    rows.append({"anchor": texts[0], "positive": texts[25]})
    scores = RetrievalSet.read([str(write_jsonl(tmp_path / "held-out.jsonl", rows))]).evaluate(model)
    queries, documents = (torch.from_numpy(model.encode(part)) for part in (texts[:20], texts[20:]))
    ranks = (queries @ documents.T).argsort(dim=1, descending=True)[:, :10]
    right = [{i} for i in range(20)]
    right[0].add(5)
    gains = [[int(document) in right[i] for document in ranks[i]] for i in range(20)]
    discounts = 1 / np.log2(np.arange(2, 12))
    ndcg = [(np.array(g) * discounts).sum() / discounts[: len(r)].sum() for g, r in zip(gains, right, strict=True)]
    mrr = [next((1 / (place + 1) for place, hit in enumerate(g) if hit), 0) for g in gains]
    recall = [sum(g) / len(r) for g, r in zip(gains, right, strict=True)]
    expected = {"ndcg@10": np.mean(ndcg), "mrr@10": np.mean(mrr), "recall@10": np.mean(recall)}
    assert scores == pytest.approx(expected, abs=1e-6)


def test_a_duplicate_of_the_right_document_counts_as_right(tmp_path):
    rows = [{"anchor": "red dog", "positive": "blue cat"}, {"anchor": "green bird", "positive": "blue cat"}]
    held_out = RetrievalSet.read([str(write_jsonl(tmp_path / "held-out.jsonl", rows))])
    assert held_out == RetrievalSet.read(rows)
    assert len(held_out.corpus) == 1
    assert held_out.relevant == {"q0": {"d0"}, "q1": {"d0"}}


@pytest.mark.parametrize(
    ("suffix", "header"), [("csv", True), ("csv", False), ("tsv", True), ("tsv", False), ("parquet", True)]
)
def test_sts_equals_spearman_of_the_cosines(tmp_path, guide_folder, header, suffix):
    model = load_model(guide_folder)
    texts = random_texts(24, seed=31)
    rows = [[texts[0], texts[0], "5.0"]]  # the two sentences of a row may be the same, also in the first row
    rows += [[texts[i], texts[12 + i], str(float(i % 5))] for i in range(1, 12)]
    path = tmp_path / f"sts.{suffix}"
    names = ["sentence1", "sentence2", "score"]
    if suffix == "parquet":  # the scores are numbers there
        pl.DataFrame([(*texts, float(score)) for *texts, score in rows], schema=names, orient="row").write_parquet(path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            head = [names] if header else []
            csv.writer(file, delimiter="," if suffix == "csv" else "\t").writerows(head + rows)
    left, right = (model.encode([row[side] for row in rows]) for side in (0, 1))
    cosines = (left * right).sum(axis=1)
    expected = spearmanr(cosines, [float(row[2]) for row in rows]).statistic
    assert evaluate_sts(model, str(path))["spearman"] == pytest.approx(expected, abs=1e-6)


def test_a_file_without_scores_is_an_error(tmp_path, guide_folder):
    model, path = load_model(guide_folder), tmp_path / "sts.jsonl"
    for row, message in (
        ({"sentence1": "red", "sentence2": "blue", "score": "high"}, "A score is no number"),
        ({"sentence1": "red", "sentence2": "blue", "score": "nan"}, "A score is no number"),
        ({"anchor": "red", "positive": "blue"}, "No row has two sentences"),
    ):
        write_jsonl(path, [row])
        with pytest.raises(InputError, match=message):
            evaluate_sts(model, str(path))
