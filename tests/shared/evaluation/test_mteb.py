"""MTEB: its own evaluation code on its own small tasks, which need no hub, and a hub that is not there."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from gistcache.shared.cli.evaluate import evaluate
from gistcache.shared.errors import InputError, SettingsError
from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer


@pytest.fixture
def local_tasks(monkeypatch):
    """Two tasks whose data mteb makes in memory, under their own names."""
    registry = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
    for task in (MockSTSTask, MockRetrievalTask):
        monkeypatch.setitem(registry, task.__name__, task)


def test_scores_are_those_of_mteb(tmp_path, student_folder, local_tasks):
    names = ("MockSTSTask", "MockRetrievalTask")
    figures = evaluate(str(student_folder), mteb=names, device="cpu", out=tmp_path / "scores.json").data
    assert set(names) < set(figures)
    task = MockSTSTask()
    task.load_data()
    rows = task.dataset["test"]
    model = SentenceTransformer(str(student_folder), device="cpu")
    one, other = (model.encode(list(rows[name])) for name in ("sentence1", "sentence2"))
    cosines = np.einsum("nd,nd->n", one, other)
    assert figures["MockSTSTask"] == pytest.approx(spearmanr(cosines, rows["score"]).statistic, abs=1e-5)
    assert 0 <= figures["MockRetrievalTask"] <= 1
    assert (tmp_path / "scores.json").is_file()


def test_a_hub_out_of_reach_is_an_error_with_a_remedy(student_folder, local_tasks, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'mteb/stsbenchmark-sts' on the Hub")

    monkeypatch.setattr(MockSTSTask, "load_data", unreachable)
    with pytest.raises(InputError, match="fetched") as raised:
        evaluate(str(student_folder), mteb=("MockSTSTask",), device="cpu")
    assert "stsbenchmark-sts" in raised.value.where
    assert "network" in raised.value.fix


def test_a_task_that_is_not_there_is_refused_before_the_model_is_loaded():
    with pytest.raises(SettingsError, match="no such task") as raised:
        evaluate("no/model", mteb=("STSBenchmarc",))
    assert "STSBenchmark" in raised.value.where
