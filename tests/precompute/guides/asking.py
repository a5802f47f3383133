"""How tests ask the embeddings server: its settings, a guide and an index by it."""

from __future__ import annotations

from gistcache.precompute.guides.choose import guide_of
from gistcache.precompute.output.store import Store
from gistcache.precompute.settings import ApiSettings, IndexSettings

from tests.conftest import build_test_index, random_pairs
from tests.precompute.guides.embeddings_server import NAME

ROWS = random_pairs(60, seed=90, negatives=1)
ROWS.append({"anchor": ROWS[1]["positive"], "positive": ROWS[2]["anchor"], "negative_1": ROWS[3]["anchor"]})
TEXTS = {text for row in ROWS for text in row.values()}


def asked(server, **settings) -> ApiSettings:
    return ApiSettings(**({"api_base": server.url, "api_batch": 8, "api_concurrency": 3} | settings))


def build(out, server, rows=ROWS, guide=f"api:{NAME}", api=None, **settings):
    api = api or asked(server)
    return build_test_index(out, rows, guide, shard_rows=32, neighbors=5, api=api, **settings)


def guide(tmp_path, server, name=NAME, dim=None, **settings):
    settings = IndexSettings(guide=f"api:{name}", dim=dim, out=tmp_path / "index", api=asked(server, **settings))
    return guide_of(settings, Store.of(settings.out))
