"""Indexes in object storage: a real S3 server on loopback, dropped connections, a kill in the middle."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from gistcache.precompute.output.lifecycle import finished
from gistcache.precompute.output.store import Store
from gistcache.shared.errors import IndexFaultError, StaleIndexError, StorageError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.manifest import Manifest
from gistcache.shared.guide_index.remote_copy import LocalCopy
from gistcache.shared.storage.remote import Remote

from tests.chaos.commands import Command
from tests.conftest import build_test_index, random_pairs, write_jsonl
from tests.precompute.test_build import contents

SETTINGS = {"shard_rows": 20, "neighbors": 5}


class Dropping:
    """A proxy that passes bytes on and cuts every n-th connection in the middle."""

    def __init__(self, port: int) -> None:
        self._target, self.every, self._count, self.dropped = port, 0, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._count += 1
            drop = bool(self.every) and self._count % self.every == 0
            self.dropped += drop
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(client, server, 2_000 if drop else None), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(65_536):
                passed += len(data)
                if limit is not None and passed > limit:
                    break
                to.sendall(data)
        except OSError:
            pass
        for each in (source, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def proxy(server):
    return Dropping(server)


@pytest.fixture
def bucket(proxy, monkeypatch, tmp_path):
    """A bucket of its own, reached through the proxy; a cache of its own."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{tmp_path.name.replace('_', '-').lower()}"[:60]
    s3fs.S3FileSystem().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def rows():
    return random_pairs(60, seed=8, negatives=1)


def built(out, rows, guide, folder: Path, **settings):
    """Build an index of rows at a URL; the rows lie in ``folder``."""
    from gistcache.precompute.build import build_index
    from gistcache.precompute.settings import IndexSettings

    source = write_jsonl(folder / "pairs.jsonl", rows)
    return build_index([str(source)], IndexSettings(guide=str(guide), out=out, **SETTINGS, **settings))


def whole_copy(url: str) -> Path:
    """The local copy of an index, with every file."""
    copy = LocalCopy.of(url)
    copy.fetch(Manifest.load(copy.layout).records)
    return copy.layout.root


def test_an_index_in_a_bucket_is_that_of_a_folder_and_trains(tmp_path, guide_folder, student_folder, rows, bucket):
    from gistcache.train.run.run import train_student
    from gistcache.train.settings import TrainSettings

    whole = build_test_index(tmp_path / "whole", rows, guide_folder, **SETTINGS)
    url = f"s3://{bucket}/index"
    built(url, rows, guide_folder, tmp_path)
    names = Remote(url).sizes()
    expected = contents(whole)
    assert names == {name: len(content) for name, content in expected.items()}
    assert contents(whole_copy(url)) == expected  # what was made here is not fetched
    assert built(url, rows, guide_folder, tmp_path)  # "already holds this index"
    with pytest.raises(StaleIndexError, match="neighbors"):
        IndexUrl(url).finished_with(whole, neighbors=6)
    index = GuideIndex.open(url)
    assert len(index) == 60
    settings = TrainSettings(
        index=url, student=str(student_folder), out=tmp_path / "run", batch_size=8, max_steps=2, device="cpu"
    )
    assert train_student(settings)["steps"] == 2
    Remote(f"s3://{bucket}").remove("index")  # where it was confirmed nothing of it stays that could be believed
    built(url, rows[:40], guide_folder, tmp_path)
    assert len(GuideIndex.open(url)) == 40


class IndexUrl:
    """A finished index at a URL, asked for with other settings."""

    def __init__(self, url: str) -> None:
        self.store = Store.of(url)

    def finished_with(self, like: Path, **settings):
        from dataclasses import replace

        request = GuideIndex.open(like).manifest.request
        finished(self.store, replace(request, settings=request.settings | settings))


def test_pairs_are_read_from_there(tmp_path, guide_folder, rows, bucket):
    source = write_jsonl(tmp_path / "pairs.jsonl", rows)
    Remote(f"s3://{bucket}/data").put(source, "pairs.jsonl")
    from gistcache.precompute.build import build_index
    from gistcache.precompute.settings import IndexSettings

    settings = IndexSettings(guide=str(guide_folder), out=tmp_path / "index", **SETTINGS)
    build_index([f"s3://{bucket}/data/pairs.jsonl"], settings)
    assert contents(tmp_path / "index") == contents(
        build_test_index(tmp_path / "whole", rows, guide_folder, **SETTINGS)
    )


def test_dropped_connections_cost_time_and_nothing_else(tmp_path, guide_folder, rows, bucket, proxy, monkeypatch):
    whole = build_test_index(tmp_path / "whole", rows, guide_folder, **SETTINGS)
    proxy.every = 3
    url = f"s3://{bucket}/index"
    built(url, rows, guide_folder, tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))  # a machine that has nothing
    assert contents(whole_copy(url)) == contents(whole)
    assert proxy.dropped


@pytest.mark.parametrize("same_machine", [True, False])
def test_killed_in_the_middle_and_finished(tmp_path, guide_folder, rows, bucket, monkeypatch, same_machine, forked):
    whole = build_test_index(tmp_path / "whole", rows, guide_folder, **SETTINGS)
    source, url = write_jsonl(tmp_path / "pairs.jsonl", rows), f"s3://{bucket}/index"
    words = ["index", source, "--guide", guide_folder, "--out", url, "--shard-rows", 20, "--neighbors", 5]
    running = Command(*words, cwd=tmp_path, environment=dict(os.environ))
    remote, deadline = Remote(url), time.monotonic() + 120
    while not any(name.startswith("vectors/") for name in remote.sizes()):
        assert running.alive, running.end()
        assert time.monotonic() < deadline
    running.send(signal.SIGKILL, after=0)
    running.end()
    assert "manifest.json" not in remote.sizes()
    with pytest.raises(IndexFaultError, match="no finished guide index"):
        GuideIndex.open(url)
    if not same_machine:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    built(url, rows, guide_folder, tmp_path)
    assert contents(whole_copy(url)) == contents(whole)
    assert set(remote.sizes()) == set(contents(whole))


def test_a_damaged_object_is_named(tmp_path, guide_folder, rows, bucket, monkeypatch):
    url = f"s3://{bucket}/index"
    built(url, rows, guide_folder, tmp_path)
    (tmp_path / "other").write_bytes(b"x" * Remote(url).sizes()["vectors/shard-00001.npy"])
    Remote(url).put(tmp_path / "other", "vectors/shard-00001.npy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(IndexFaultError, match="not the one that the manifest records") as caught:
        GuideIndex.open(url)
    assert "vectors/shard-00001.npy" in str(caught.value)


def test_what_cannot_be_reached_is_told(tmp_path, guide_folder, rows, bucket):
    with pytest.raises((StorageError, IndexFaultError), match=r"storage|finished"):
        GuideIndex.open("s3://no-such-bucket-here/index")
    with pytest.raises(StorageError, match="no file system"):
        GuideIndex.open("nosuch://bucket/index")
    Remote(f"s3://{bucket}/thesis").put(write_jsonl(tmp_path / "x.jsonl", rows), "mine.jsonl")
    with pytest.raises(IndexFaultError, match="holds no guide index"):
        built(f"s3://{bucket}/thesis", rows, guide_folder, tmp_path)
