"""An index at a URL: which files are fetched, when, and by whom; `file://` stands for the storage."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gistcache.shared.cli.verify import verify
from gistcache.shared.errors import IndexFaultError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.reusable_vectors import ReusableVectors
from gistcache.shared.storage.remote import Remote

from tests.shared.guide_index.index_folder import small

NOW = {"texts", "contents", "pairs", "lookup", "negatives", "vectors", "density"}


@pytest.fixture
def fetched(monkeypatch, tmp_path) -> Counter[str]:
    """How often each file has been downloaded; the cache is the test's own."""
    names, get = Counter[str](), Remote.get
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Remote, "get", lambda self, name, to: (get(self, name, to), names.update([name])))
    return names


@pytest.fixture
def url(tmp_path) -> str:
    return f"file://{small().write(tmp_path / 'storage' / 'index')}"


def kinds(names: Counter[str]) -> set[str]:
    return {name.split("/")[0] for name in names if "/" in name}


def use(index: GuideIndex) -> None:
    ids = index.pairs(np.arange(3))
    index.vectors(ids.anchors), index.density(ids.positives), index.known_positives(np.arange(3))
    index.tasks(np.arange(3)), index.to_dataset()


def test_scores_are_fetched_when_asked_for_and_faiss_files_by_verify(url, fetched):
    index = GuideIndex.open(url)
    use(index)
    assert kinds(fetched) == NOW
    sent = pickle.loads(pickle.dumps(index))  # as to a worker process
    use(sent)
    assert kinds(fetched) == NOW
    assert [table.num_rows for table in sent.scores(["pair_id"])] == [3]
    assert [table.num_rows for table in index.scores(["pair_id"])] == [3]
    assert kinds(fetched) == {*NOW, "scores"}
    assert verify(url).exit_code == 0
    assert kinds(fetched) == {*NOW, "scores", "faiss"}
    assert all(path.is_file() for path in index.faiss_files())
    assert {count for name, count in fetched.items() if "/" in name} == {1}


def test_reuse_fetches_texts_and_vectors_alone(url, fetched):
    assert len(ReusableVectors.open(url).vectors) == 7
    assert kinds(fetched) == {"texts", "vectors"}


def test_each_file_is_downloaded_once_however_many_open_the_url(url, fetched):
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda _: next(GuideIndex.open(url).scores()).num_rows, range(12))) == {3}
    assert {count for name, count in fetched.items() if "/" in name} == {1}
    assert not [path for path in Path(GuideIndex.open(url).layout.root).rglob("*.partial")]


def test_a_score_shard_that_is_another_one_is_refused_when_it_is_fetched(url, fetched, tmp_path):
    index = GuideIndex.open(url)
    path = tmp_path / "storage" / "index" / "scores" / "shard-00000.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IndexFaultError, match="not the one that the manifest records") as caught:
        list(index.scores())
    assert "scores/shard-00000.parquet" in str(caught.value)


def test_a_changed_index_has_another_copy_and_no_index_is_told_as_such(url, fetched, tmp_path):
    first, folder = GuideIndex.open(url), small()
    folder.vectors[:] = folder.vectors[::-1].copy()
    shutil.rmtree(tmp_path / "storage" / "index")
    with pytest.raises(IndexFaultError, match="no finished guide index"):
        GuideIndex.open(url)
    folder.write(tmp_path / "storage" / "index")
    second = GuideIndex.open(url)
    assert second.layout.root != first.layout.root
    assert np.array_equal(second.vectors(np.arange(7)), first.vectors(np.arange(7))[::-1])


def test_the_summary_beside_the_index_is_fetched_when_asked_for(url, fetched, tmp_path):
    index = GuideIndex.open(url)
    assert index.summary() is None
    (tmp_path / "storage" / "index.summary.json").write_text(json.dumps({"manifest": index.manifest.key, "seconds": 1}))
    assert index.summary() == {"manifest": index.manifest.key, "seconds": 1}
