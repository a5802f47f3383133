"""What an endpoint can do wrong, what is asked of it wrongly, its pace, and its key, which is nowhere."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from gistcache.precompute.guides import endpoint
from gistcache.precompute.settings import ApiSettings, IndexSettings
from gistcache.shared.errors import GistcacheError, ModelError, SettingsError

from tests.conftest import random_pairs
from tests.precompute.guides.asking import TEXTS, asked, build, guide
from tests.precompute.guides.embeddings_server import KEY, NAME
from tests.precompute.test_build import contents

FAULTS = {
    "key": ({"faults": [401]}, "refuses the key", "OPENAI_API_KEY"),
    "not allowed": ({"faults": [403]}, "refuses the key", "OPENAI_API_KEY"),
    "model": ({"name": "other"}, "no such model.*other does not exist", "api:MODEL"),
    "quota": ({"faults": [429]}, "limit is reached", "--api-concurrency"),
    "too large": ({"faults": [413]}, "cannot take these texts", "--api-batch"),
    "server": ({"faults": [502]}, "refuses the request", "run the same command again"),
    "dropped": ({"faults": ["drop"]}, "cannot be reached", "--api-base"),
    "not JSON": ({"faults": [(200, "<html>")]}, "no answer to 1 texts", "/v1"),
    "no vectors": ({"faults": [(200, "none")]}, "no answer to 1 texts", "/v1"),
    "few vectors": ({"change": lambda vectors: vectors[:0]}, "no answer to 1 texts", "/v1"),
    "other dimensions": ({"change": lambda vectors: vectors[:, :5]}, "5 dimensions came, 8 were expected", "--dim"),
    "zero": ({"change": lambda vectors: vectors * 0}, "zero vector", "leave the text out"),
    "not finite": ({"change": lambda vectors: vectors * np.nan}, "non-finite vector", "leave the text out"),
}


def test_faults_that_pass_are_waited_out(tmp_path, server):
    server.faults = [None, 429, 500, "drop", (503, "overloaded"), 429, "drop", 408]
    build(tmp_path / "index", server)
    assert not server.faults
    assert server.billed == Counter([*TEXTS, "dimensions"])


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_mended_is_told(tmp_path, server, fault):
    change, what, fix = FAULTS[fault]
    name = change.get("name", NAME)
    for each, value in change.items():
        if each != "name":
            setattr(server, each, value)
    with pytest.raises(ModelError, match=what) as caught:
        guide(tmp_path, server, name, dim=8, api_retries=0).encode(["red dog"], "query")
    assert fix in caught.value.fix
    assert fault in ("zero", "not finite") or server.url in caught.value.where


def test_an_odd_vector_does_not_cost_the_rest_of_its_request(tmp_path, server):
    texts = [f"text {number}" for number in range(6)]
    server.change = lambda vectors: vectors * (np.arange(len(vectors)) != 2)[:, None]
    with pytest.raises(ModelError, match="zero vector"):
        guide(tmp_path, server, dim=8, api_batch=8).encode(texts, "query")
    server.change = lambda vectors: vectors
    found = guide(tmp_path, server, dim=8, api_batch=8).encode(texts, "query")
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert sorted(server.billed.values()) == [1] * 5 + [2]


def test_an_answer_that_does_not_come_is_given_up(tmp_path, server):
    with server.lock, pytest.raises(ModelError, match=r"No answer came in 0\.05 s"):
        guide(tmp_path, server, dim=8, api_retries=0, api_timeout=0.05).encode(["red dog"], "query")


def test_the_key_is_written_and_said_nowhere(tmp_path, server, monkeypatch, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    out = build(tmp_path / "index", server)
    server.broken_after = 2
    with pytest.raises(ModelError):
        build(tmp_path / "cut", server, random_pairs(20, seed=94), api=asked(server, api_retries=0))
    server.broken_after = None
    written = b"".join(contents(tmp_path).values())
    assert out.exists()
    monkeypatch.setenv("MY_KEY", "sk-wrong-and-secret\n")
    with pytest.raises(ModelError, match="Incorrect API key provided: Bearer") as caught:
        guide(tmp_path, server, dim=8, api_key_env="MY_KEY").encode(["red"], "query")
    assert "MY_KEY" in caught.value.fix
    assert caught.value.__suppress_context__
    told = "".join(capsys.readouterr()) + caplog.text + str(caught.value)
    for secret in (KEY, "sk-wrong-and-secret"):
        assert secret not in told
        assert secret.encode() not in written


def test_a_key_that_is_missing_is_named(tmp_path, server, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(SettingsError, match="There is no key"):
        guide(tmp_path, server, api_key_env="MY_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="refuses the key"):
        guide(tmp_path, server, dim=8).encode(["blue cat"], "query")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SettingsError, match="There is no key"):
        guide(tmp_path, server, api_base=None)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"max_length": 8}, "--max-length"),
        ({"dtype": "float32"}, "--dtype"),
        ({"batch_tokens": 64}, "--batch-tokens"),
        ({"guide": "package:some", "api": ApiSettings(api_batch=3)}, "--api-batch"),
        ({"guide": "api:"}, "--guide"),
    ],
)
def test_settings_without_meaning_are_refused(settings, flag):
    with pytest.raises(SettingsError) as caught:
        IndexSettings(**({"guide": "api:some"} | settings))
    assert flag in caught.value.where


@pytest.mark.parametrize(
    "settings",
    [
        {"api_base": "http://user:word@host/v1"},
        {"api_base": "http://host/v1?key=word"},
        {"api_budget": 1.0},
        {"api_batch": 0},
        {"api_retries": -1},
    ],
)
def test_unusable_endpoint_settings_are_refused(settings):
    with pytest.raises(GistcacheError) as caught:
        ApiSettings(**settings)
    assert "word" not in str(caught.value).replace("password", "")


def test_the_pace_spaces_all_requests_of_a_process_and_repeated_ones_too(tmp_path, server, monkeypatch):
    now, slept = [100.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=slept.append)
    monkeypatch.setattr(endpoint, "time", clock)
    pace = endpoint.Pace(30)
    for _ in range(3):
        pace(None)
    assert slept == [2, 4]
    now[0] = 200.0
    pace(None)
    assert slept == [2, 4]
    turns = []
    monkeypatch.setattr(endpoint.Pace, "__call__", lambda self, request: turns.append(request))
    server.faults = [429, 500]
    guide(tmp_path, server, dim=8, api_requests_per_minute=1).encode(["red dog"], "query")
    assert len(turns) == len(server.requests) == 3
