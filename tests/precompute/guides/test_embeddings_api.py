"""A guide behind a real server: the vectors of the model that runs here, each text paid for once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import numpy as np
import pytest
from gistcache.precompute.guides import response_cache
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.guides.response_cache import Answers
from gistcache.precompute.output.store import Store
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import IndexFaultError, ModelError, SettingsError, StaleIndexError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.storage.journal import Journal
from gistcache.shared.storage.remote import Remote
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings

from tests.chaos.commands import Command, finish
from tests.conftest import build_test_index, random_pairs, random_texts, write_jsonl
from tests.precompute.guides.asking import ROWS, TEXTS, asked, build, guide
from tests.precompute.guides.embeddings_server import NAME
from tests.precompute.test_build import contents


@pytest.mark.parametrize("dim", [None, 8])
def test_the_vectors_are_those_of_the_model_that_runs_here(tmp_path, server, guide_folder, dim):
    texts = random_texts(40, seed=91)
    found = guide(tmp_path, server, dim=dim).encode(texts, "query")
    local = ModelGuide(IndexSettings(guide=str(guide_folder), dim=dim, device="cpu")).encode(texts, "query")
    assert found.dtype == np.float32
    assert found.shape == local.shape
    assert np.abs(found - local).max() < 1e-5
    assert [request.get("dimensions") for request in server.requests] == [dim] * len(server.requests)


def test_prompts_are_put_before_texts(tmp_path, server, prompted_guide_folder):
    out = build(tmp_path / "index", server, query_prompt="find: ", document_prompt="text: ")
    local = build_test_index(tmp_path / "local", ROWS, prompted_guide_folder, shard_rows=32, neighbors=5)
    ours, theirs = (GuideIndex.open(each) for each in (out, local))
    ids = np.arange(sum(ours.manifest.request.corpus[role] for role in ("queries", "documents")))
    assert np.abs(ours.vectors(ids).astype(np.float32) - theirs.vectors(ids)).max() < 6e-4
    assert ours.manifest.request.guide == {
        "name": f"api:{NAME}",
        "api": NAME,
        "prompts": {"query": "find: ", "document": "text: "},
        "dim": 32,
        "dimensions": None,
    }


def test_what_was_answered_is_paid_for_once_whatever_stops_the_run(tmp_path, server):
    whole = build(tmp_path / "whole", server, dim=32)
    assert server.billed == Counter(TEXTS)
    assert not (whole / "building").exists()
    server.billed, server.answered, server.broken_after = Counter(), 0, 6
    with pytest.raises(ModelError, match="limit is reached"):
        build(tmp_path / "cut", server, dim=32, api=asked(server, api_retries=0))
    assert 0 < server.billed.total() < len(TEXTS)
    server.broken_after = None
    # Other batches, another number of requests at a time: what was answered stays answered.
    build(tmp_path / "cut", server, dim=32, api=asked(server, api_batch=5, api_concurrency=1))
    assert server.billed == Counter(TEXTS)
    assert contents(tmp_path / "cut") == contents(whole)


class PoweredOffError(BaseException):
    pass


@pytest.mark.parametrize("cut", ["answer", "shard"])
def test_a_run_cut_off_goes_on_where_it_was(tmp_path, server, monkeypatch, cut):
    """Without power just after an answer is on disk, and just before a shard of vectors is recorded."""
    owner, name = (Answers, "add") if cut == "answer" else (Journal, "record")
    original, calls = getattr(owner, name), []

    def once(self, *arguments):
        stopped = cut == "shard" and arguments[0].path.startswith("vectors")
        if not stopped:
            original(self, *arguments)
        calls.append(name)
        if stopped or (cut == "answer" and len(calls) == 4):
            raise PoweredOffError

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, once)
        with pytest.raises(PoweredOffError):
            build(tmp_path / "index", server)
    assert 0 < server.billed.total() < len(TEXTS)
    build(tmp_path / "index", server)
    assert server.billed == Counter([*TEXTS, "dimensions"])


def test_a_killed_build_pays_again_for_no_more_than_the_request_under_way(tmp_path, server, forked):
    write_jsonl(tmp_path / "pairs.jsonl", ROWS)
    words = ["index", "pairs.jsonl", "--guide", f"api:{NAME}", "--dim", 32, "--out", "index"]
    words += ["--api-base", server.url, "--api-batch", 8, "--api-concurrency", 1]
    command = Command(*words, cwd=tmp_path, environment=dict(os.environ))
    while server.billed.total() < 32:
        time.sleep(0.001)
    command.send(signal.SIGKILL, after=0)
    assert command.end()[0] == -signal.SIGKILL
    finish(*words, cwd=tmp_path, environment=dict(os.environ))
    assert set(server.billed) == TEXTS
    assert server.billed.total() <= len(TEXTS) + 8


def test_the_first_process_alone_sends_requests(tmp_path, server, forked):
    index = build(tmp_path / "index", server, num_workers=2)
    assert server.billed == Counter([*TEXTS, "dimensions"])
    assert contents(index) == contents(build(tmp_path / "one", server))


def test_a_damaged_file_of_answers_is_an_error_that_says_what_to_do(tmp_path, server):
    server.broken_after = 4
    with pytest.raises(ModelError):
        build(tmp_path / "index", server, dim=32, api=asked(server, api_retries=0))
    path = tmp_path / "index" / "building" / "answers.sqlite"
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(IndexFaultError, match="answers cannot be read") as caught:
        build(tmp_path / "index", server, dim=32)
    assert caught.value.where == str(path)


KEYS, VECTORS = [bytes([number] * 16) for number in range(4)], np.arange(8, dtype=np.float32).reshape(4, 2)


def test_another_machine_takes_the_answers_up_from_the_storage(tmp_path):
    here, there = (Answers(Store(tmp_path / name, Remote("memory://answers"))) for name in ("here", "there"))
    here.add(KEYS[:2], VECTORS[:2])
    here.upload()
    here.add(KEYS[2:3], VECTORS[2:3])
    assert there.read(KEYS).keys() == set(KEYS[:2])
    there.add(KEYS[3:], VECTORS[3:])
    there.upload()
    again = Answers(Store(tmp_path / "here", Remote("memory://answers"))).read(KEYS)
    assert all(np.array_equal(again[key], vector) for key, vector in zip(KEYS, VECTORS, strict=True))


def test_answers_go_up_now_and_then_while_they_come(tmp_path, monkeypatch):
    store = Store(tmp_path, Remote("memory://often"))
    monkeypatch.setattr(response_cache, "UPLOAD_SECONDS", 0.0)
    Answers(store).add(KEYS, VECTORS)
    assert store.remote.sizes().keys() == {"building/answers.sqlite"}


def test_texts_too_long_are_shortened_and_the_rest_is_not_paid_for_again(tmp_path, server):
    server.faults = [None] * 3 + [(400, "maximum context length is 32 tokens")]
    with pytest.raises(ModelError, match="maximum context length") as caught:
        build(tmp_path / "index", server, dim=32, api=asked(server, api_concurrency=1))
    assert "--reuse" in caught.value.fix
    paid = Counter(server.billed)
    edited = [ROWS[0] | {"positive": "red dog"}, *ROWS[1:]]
    with pytest.raises(StaleIndexError):
        build(tmp_path / "index", server, dim=32, rows=edited)
    build(tmp_path / "edited", server, dim=32, rows=edited, reuse=tmp_path / "index")
    assert 24 <= paid.total() < len(TEXTS)
    assert set(server.billed.values()) == {1}
    index = build(tmp_path / "more", server, rows=random_pairs(9, seed=92) + edited, dim=32, reuse=tmp_path / "edited")
    assert set(server.billed.values()) == {1}
    assert len(GuideIndex.open(index)) == len(edited) + 9


def test_the_estimate_comes_before_anything_is_sent(tmp_path, server, capsys):
    # 4 bytes a token: counted here once more, in another way.
    tokens = sum(len(text.encode()) for text in TEXTS) / 4
    priced = {"api_price": 1000.0, "api_budget": tokens / 1000 - 0.01}
    with pytest.raises(SettingsError, match="budget") as caught:
        build(tmp_path / "index", server, api=asked(server, **priced))
    assert caught.value.where == "--api-budget"
    assert not server.requests
    told = capsys.readouterr().err
    assert f"{len(TEXTS):,} texts to send, about {tokens:,.0f} tokens (estimate" in told
    assert f"about {tokens / 1000:,.4f} at 1000 a million" in told
    server.broken_after = 5
    with pytest.raises(ModelError):
        build(tmp_path / "index", server, dim=32, api=asked(server, api_retries=0, api_concurrency=1))
    server.broken_after = None
    build(tmp_path / "index", server, dim=32, api=asked(server, **priced))  # what is left is within the budget
    assert "40 texts were answered before" in capsys.readouterr().err


@pytest.mark.parametrize("dim", [None, 32])
def test_a_finished_index_asks_for_nothing(tmp_path, server, dim):
    build(tmp_path / "index", server, dim=dim)
    server.requests = []
    build(tmp_path / "index", server, dim=dim, api=asked(server, api_price=1e6, api_budget=0.0))
    assert not server.requests


def test_an_index_of_cut_vectors_is_not_taken_for_one_of_whole_ones(tmp_path, server):
    build(tmp_path / "index", server, dim=16)
    with pytest.raises(StaleIndexError, match=r"guide\.dim"):
        build(tmp_path / "index", server)


def test_the_guide_is_evaluated_through_the_endpoint(tmp_path, server, guide_folder):
    held_out = write_jsonl(tmp_path / "held.jsonl", [*random_pairs(20, seed=93), *ROWS[:5]])
    index = build(tmp_path / "index", server, eval_pairs=(str(held_out),))
    local = build_test_index(tmp_path / "local", ROWS, guide_folder, eval_pairs=(str(held_out),))
    figures = [GuideIndex.open(each).manifest.measured["guide"] for each in (index, local)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    assert set(server.billed.values()) == {1}


def test_a_student_trains_on_such_an_index_and_its_card_names_the_guide(tmp_path, server, student_folder):
    index = build(tmp_path / "index", server)
    settings = TrainSettings(index=index, student=str(student_folder), out=tmp_path / "out", batch_size=8, max_steps=1)
    assert train_student(settings)["steps"] == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"guide: `api:{NAME}`, 32 dimensions" in card
    assert "guide's files" not in card
