"""The embeddings server, one for all tests that ask it; each finds it in order."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.precompute.guides.embeddings_server import KEY, EmbeddingsServer


@pytest.fixture(scope="session")
def one_server(guide_folder):
    server = EmbeddingsServer(guide_folder)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(one_server, monkeypatch):
    one_server.faults, one_server.broken_after, one_server.change = [], None, lambda vectors: vectors
    one_server.billed, one_server.requests, one_server.answered = Counter(), [], 0
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)  # where there is no Retry-After
    return one_server
