"""The same bytes whatever computes the shards: one process, several, a Ray cluster, and one after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from gistcache.precompute import build as build_module
from gistcache.precompute.guides.base import load_in_worker
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.run.local import Processes, engine_of
from gistcache.precompute.run.ray import RayEngine
from gistcache.precompute.search import faiss_index
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import GistcacheError, ModelError, SettingsError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.storage.journal import Journal

from tests.chaos.commands import Forked
from tests.conftest import build_test_index, random_pairs
from tests.precompute.run.marking_job import MarkingJob, wait_for_ever, workers_in
from tests.precompute.test_build import columns_of, contents

SETTINGS = {"shard_rows": 60, "neighbors": 5, "document_shard_rows": 60, "exact_limit": 20}
WHOLE = SETTINGS | {"document_shard_rows": 10**6, "exact_limit": 10**6}
RAY = {"engine": "ray", "num_workers": 1}  # every actor loads the libraries anew
TABLES = ("texts", "pairs", "contents", "lookup", "negatives")


class PoweredOffError(BaseException):
    pass


@pytest.fixture(scope="module")
def rows():
    return random_pairs(150, seed=5, negatives=1)


@pytest.fixture(scope="module")
def local(tmp_path_factory, guide_folder, rows) -> Path:
    return build_test_index(tmp_path_factory.mktemp("local") / "index", rows, guide_folder, **SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, guide_folder, rows) -> Path:
    return build_test_index(tmp_path_factory.mktemp("whole") / "index", rows, guide_folder, **WHOLE)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


def cut_after(monkeypatch, records: int):
    """Make the build end, as without power, when so many parts are recorded."""
    original, written = Journal.record, []

    def record(self, part):
        if len(written) == records:
            raise PoweredOffError
        written.append(part.path)
        original(self, part)

    monkeypatch.setattr(Journal, "record", record)


def test_document_shards_searched_whole_give_what_exact_search_gives(tmp_path, guide_folder, rows, whole, monkeypatch):
    monkeypatch.setattr(faiss_index, "TARGET_RECALL", 2)  # probe every list
    sliced = GuideIndex.open(build_test_index(tmp_path / "index", rows, guide_folder, **SETTINGS))
    assert len(sliced.manifest.shards["faiss"]) == 3
    assert not sliced.layout.building.exists()
    sliced, searched_at_once = (columns_of(each)[1] for each in (sliced, GuideIndex.open(whole)))
    assert sliced["positive_score"] == searched_at_once["positive_score"]
    neighbors = SETTINGS["neighbors"]
    assert sliced["positive_rank"] == [min(rank, neighbors) for rank in searched_at_once["positive_rank"]]
    assert np.allclose(sliced["neighbor_scores"], searched_at_once["neighbor_scores"], atol=1e-6)


def test_a_search_of_document_shards_that_is_cut_again_and_again_ends_in_the_same_bytes(
    tmp_path, guide_folder, rows, local, monkeypatch
):
    for records in 6 * [3, 4, 5]:
        with monkeypatch.context() as patch:
            cut_after(patch, records)
            try:
                build_test_index(tmp_path / "index", rows, guide_folder, **SETTINGS)
                break
            except PoweredOffError:
                continue
    assert contents(tmp_path / "index") == contents(local)


def test_several_processes_write_the_bytes_of_one(tmp_path, guide_folder, rows, forked):
    settings = SETTINGS | {"vector_dtype": "int8"}
    one = build_test_index(tmp_path / "one", rows, guide_folder, **settings)
    two = build_test_index(tmp_path / "two", rows, guide_folder, num_workers=2, **settings)
    assert contents(two) == contents(one)


def test_begun_by_ray_gone_on_with_here_and_finished_by_ray(tmp_path, guide_folder, rows, whole, monkeypatch, ray):
    folder, parts = tmp_path / "index", GuideIndex.open(whole).manifest.shards
    before = sum(len(parts[kind]) for kind in TABLES) + len(["rejected rows"])

    def cut(records: int, kind: str, **engine) -> dict[Path, int]:
        """A build that ends after so many records; the files of a kind that it leaves, and when they were written."""
        with monkeypatch.context() as patch:
            cut_after(patch, records)
            with pytest.raises(PoweredOffError):
                build_test_index(folder, rows, guide_folder, **WHOLE, **engine)
        made = {path: path.stat().st_mtime_ns for path in (folder / kind).glob("*.npy")}
        assert 2 <= len(made) < len(parts[kind])  # this engine has worked, and not to the end
        return made

    begun = cut(before + 2, "vectors", **RAY)
    gone_on = cut(len(parts["vectors"]), "density")
    build_test_index(folder, rows, guide_folder, **WHOLE, **RAY)
    assert contents(folder) == contents(whole)
    for made in (begun, gone_on):  # two at least were recorded, and stay
        assert sum(path.stat().st_mtime_ns != stamp for path, stamp in made.items()) <= len(made) - 2


def test_an_actor_killed_at_work_costs_its_part_and_nothing_else(tmp_path, guide_folder, ray):
    rows = random_pairs(450, seed=6)
    killed, made = [], set()

    def kill_one():
        """As soon as a part of vectors is there: one of the actors, by SIGKILL."""
        folder = tmp_path / "cut" / "vectors"
        while not list(folder.glob("*.npy")):
            time.sleep(0.01)
        running = psutil.process_iter(["cmdline"])  # one that ended meanwhile has no command line: None
        actors = [each for each in running if "ray::Worker" in " ".join(each.info["cmdline"] or [])]
        made.update((path, path.stat().st_mtime_ns) for path in folder.glob("*.npy"))
        if actors:
            actors[0].kill()
            killed.append(actors[0].pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    settings = {"shard_rows": 64, "neighbors": 5}
    cut = build_test_index(tmp_path / "cut", rows, guide_folder, **RAY | settings | {"num_workers": 2})
    killer.join()
    assert killed
    assert contents(cut) == contents(build_test_index(tmp_path / "whole", rows, guide_folder, **settings))
    assert sum(path.stat().st_mtime_ns != stamp for path, stamp in made) <= 1  # the killed actor's own, in flight


def test_a_killed_worker_ends_the_job_with_its_fellows(tmp_path, forked):
    with pytest.raises(GistcacheError, match="worker was killed"):
        list(Processes(2, []).run(MarkingJob(tmp_path, kills=True), range(9), lambda rows: None))
    assert not multiprocessing.active_children()
    results = list(Processes(2, []).run(MarkingJob(tmp_path), range(9), lambda rows: None))
    assert sorted((result.number, result.stats["value"]) for result in results) == [(n, n) for n in range(9)]


def test_workers_end_when_the_first_process_is_killed(tmp_path, forked):
    folder = tmp_path / "marks"
    folder.mkdir()
    first = Forked(wait_for_ever, folder, cwd=tmp_path)
    while len(workers_in(folder)) < 2:
        time.sleep(0.01)
    workers = [psutil.Process(number) for number in workers_in(folder)]
    first.send(signal.SIGKILL, after=0)
    first.end()
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_each_worker_has_a_gpu_of_its_own_as_long_as_there_are_enough(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f,GPU-2c")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    engine = engine_of(IndexSettings(guide="x", num_workers=3))
    assert engine.places == ["GPU-8f", "GPU-2c", "GPU-8f"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert engine_of(IndexSettings(guide="x")).places == ["0", "1"]
    assert engine_of(IndexSettings(guide="x", num_workers=2, device="cpu")).places == [max(1, os.cpu_count() // 2)] * 2


def test_a_shard_that_kills_every_actor_is_an_error_and_actors_serve_all_jobs(tmp_path, ray):
    with closing(RayEngine(1, None)) as engine:
        for _ in range(2):
            numbers = [result.number for result in engine.run(MarkingJob(tmp_path), range(4), lambda rows: None)]
            assert sorted(numbers) == [0, 1, 2, 3]
        assert len(workers_in(tmp_path)) == 1
        with pytest.raises(GistcacheError, match="died 4 times over the same shard"):
            list(engine.run(MarkingJob(tmp_path, kills=True), range(1, 3), lambda rows: None))
        assert len([path for path in tmp_path.glob("*-1-*")]) == 2 + 4


def test_a_worker_with_another_guide_is_refused(tmp_path, guide_folder, prompted_guide_folder):
    fingerprint = ModelGuide(IndexSettings(guide=str(guide_folder))).fingerprint()
    with pytest.raises(ModelError, match=r"prompts.query: the first process has '', command asks for 'find: '"):
        load_in_worker(ModelGuide, (IndexSettings(guide=str(prompted_guide_folder)),), fingerprint)


@pytest.mark.parametrize("engine", [{"num_workers": 2}, RAY])
def test_a_workers_error_is_raised_by_the_first_process(tmp_path, guide_folder, rows, engine, request):
    request.getfixturevalue("ray" if "engine" in engine else "forked")
    folder = tmp_path / "index"
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, 12)
        with pytest.raises(PoweredOffError):
            build_test_index(folder, rows, guide_folder, **SETTINGS)
    for text in (folder / "texts").glob("*.parquet"):
        text.write_bytes(text.read_bytes()[:-1] + b"?")  # journal and file no longer agree
    (folder / "building" / "journal.jsonl").write_bytes(b"")
    # Everything is made again: a worker that cannot see the folder is what is left to fail.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "_write_corpus", _write_corpus_elsewhere)
        with pytest.raises(GistcacheError, match="cannot be found"):
            build_test_index(folder, rows, guide_folder, **SETTINGS, **engine)


def _write_corpus_elsewhere(shards, *args):
    """The step as it is, and then its files gone, as on a machine that does not share the folder."""
    record = _write_corpus(shards, *args)
    for path in (shards.store.root / "texts").glob("*.parquet"):
        path.unlink()
    return record


_write_corpus = build_module._write_corpus


def test_an_engine_that_is_not_installed_is_told_before_pairs_are_read(tmp_path, guide_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = IndexSettings(guide=str(guide_folder), out=tmp_path / "index", engine="ray")
    with pytest.raises(SettingsError, match=r"not installed(?s:.)*gistcache\[ray\]"):
        build_module.build_index([str(tmp_path / "nowhere.jsonl")], settings)


def test_an_address_without_ray_is_refused():
    with pytest.raises(SettingsError, match="--ray-address"):
        IndexSettings(guide="x", ray_address="auto")
