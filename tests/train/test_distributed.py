"""Two processes on a CPU against one with the same global batch: the loss, its gradient, and a whole training run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.chaos.commands import Forked, gistcache
from tests.conftest import build_test_index, make_model, random_pairs, random_texts
from tests.train.distributed_step import take_step

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LONGEST_RUN = 600  # seconds

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory, guide_folder):
    """Pairs with two negatives; some share their positive, or have another's positive as their negative."""
    rows = random_pairs(80, seed=50, negatives=2)
    texts = random_texts(6, seed=51)
    rows += [{"anchor": texts[i], "positive": rows[i]["positive"], "negative_1": rows[0]["positive"]} for i in range(4)]
    rows += [{"anchor": rows[1]["anchor"], "positive": texts[4]}, {"anchor": rows[2]["positive"], "positive": texts[5]}]
    return build_test_index(tmp_path_factory.mktemp("ranks") / "index", rows, guide_folder)


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory):
    """A student without dropout, whose steps are the same however they are divided."""
    return make_model(tmp_path_factory.mktemp("student") / "s", dim=16, layers=2, seed=2, dropout=0.0)


def run(act: Callable[..., None], given: object, folder: Path, processes: int, code: int = 0) -> str:
    """Call a function in one process, or in several as a launcher starts them; returns what the first one says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    group = {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    places = [group | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(processes)]
    running = [Forked(act, given, cwd=folder, environment=each if processes > 1 else {}) for each in places]
    ends = [each.end(LONGEST_RUN) for each in running]
    assert [end[0] for end in ends] == [code] * processes, ends
    return ends[0][1]


def train(words: list[object], folder: Path, processes: int, code: int = 0) -> str:
    """`gistcache train` in so many processes."""
    return run(gistcache, ["train", *map(str, words)], folder, processes, code)


def launched(words: list[object], folder: Path) -> None:
    """`gistcache train` by torchrun."""
    command = [sys.executable, *TORCHRUN, "-m", "gistcache.train", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            _, said = process.communicate(timeout=LONGEST_RUN)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its processes, which may wait for each other for ever
            raise
    assert process.returncode == 0, said


TERMS = {"kl_weight": 0.5, "margin_mse_weight": 2.0, "regression_weight": 1.0}


@pytest.mark.parametrize(
    ("tokens", "judge", "terms"), [(None, "positive", {}), (60, "positive", {}), (None, "neighborhood", TERMS)]
)
def test_loss_and_gradients_are_those_of_one_process(tmp_path, index_folder, student_folder, tokens, judge, terms):
    # 80 to 83 have the positives of 0 to 3; 84 has the anchor of 1; the positive of 2 is the anchor of 85.
    labels = [0, 1, 2, 3, 10, 11, 12, 13, 80, 81, 82, 83, 84, 85, 20, 21]
    for processes, name in enumerate(("one", "two"), start=1):
        given = {"index": str(index_folder), "student": str(student_folder), "labels": labels}
        given |= {"tokens": tokens, "judge": judge, "terms": terms, "out": str(tmp_path / f"{name}.pt")}
        run(take_step, given, tmp_path, processes)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert torch.allclose(one["loss"], two["loss"], atol=1e-5)
    assert one["counts"] == two["counts"]
    assert one["gradients"].keys() == two["gradients"].keys()
    assert ("map.weight" in one["gradients"]) == bool(terms)
    for name, gradient in one["gradients"].items():
        assert torch.allclose(gradient, two["gradients"][name], atol=1e-5), name


def test_a_run_of_two_processes_ends_where_one_does_and_each_goes_on_from_the_other(
    tmp_path, index_folder, student_folder
):
    words = ["--index", index_folder, "--student", student_folder, "--batch-size", 16, "--epochs", 3]
    words += ["--learning-rate", 1e-3, "--save-steps", 5, "--logging-steps", 5, "--negatives", 0, "--device", "cpu"]
    words += ["--judge", "neighborhood", "--hard-negatives", 1, "--margin-mse-weight", 1, "--regression-weight", 1]
    train([*words, "--out", "one"], tmp_path, processes=1)
    launched([*words, "--out", "two"], tmp_path)
    for name, begun, processes in (("one-then-two", "one", 2), ("two-then-one", "two", 1)):
        shutil.copytree(tmp_path / begun, tmp_path / name)
        for left in (tmp_path / name).iterdir():  # as if it had been killed after its last but one checkpoint
            if left.is_file():
                left.unlink()
        checkpoints = (tmp_path / name / "checkpoints").glob("checkpoint-*")
        newest = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
        newest.rename(tmp_path / name / "left-out")
        said = train([*words, "--out", name, "--resume"], tmp_path, processes)
        assert "resuming from" in said
    whole = load_file(tmp_path / "one" / "model.safetensors")
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    for name in ("two", "one-then-two", "two-then-one"):
        weights = load_file(tmp_path / name / "model.safetensors")
        for key, value in whole.items():
            if key.endswith("key.bias"):  # has no influence and no gradient: Adam density up what rounding leaves
                continue
            assert torch.allclose(value, weights[key], atol=1e-5), (name, key)
        held = json.loads((tmp_path / name / "metrics.json").read_text())
        for figure in ("removed_share", "effective_negatives", "mean_threshold"):
            assert held[figure] == pytest.approx(metrics[figure], rel=1e-3)
        assert held["steps"] == metrics["steps"]


def test_processes_may_need_different_numbers_of_passes(tmp_path, guide_folder):
    """A student that is not packed is forwarded bucket by bucket, and a long text is a bucket of one process only.

    Buffers that were broadcast at each pass would be waited for for ever: sentence-transformers' arguments forbid that.
    """
    rows = random_pairs(32, seed=60)
    rows[3]["anchor"] = rows[20]["positive"] = " ".join(random_texts(6, seed=61))
    index = build_test_index(tmp_path / "index", rows, guide_folder)
    student = make_model(tmp_path / "student", dim=16, seed=2, dropout=0.0)
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    words = ["--index", index, "--student", student, "--batch-size", 16, "--epochs", 3, "--device", "cpu"]
    train([*words, "--out", "one"], tmp_path, processes=1)
    train([*words, "--out", "two"], tmp_path, processes=2)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        if not key.endswith("key.bias"):  # see above
            assert torch.allclose(value, two[key], atol=1e-5), key


def test_a_batch_that_cannot_be_shared_out_is_told(tmp_path, index_folder, student_folder):
    words = ["--index", index_folder, "--student", student_folder, "--batch-size", 15, "--device", "cpu"]
    said = train([*words, "--out", "odd"], tmp_path, processes=2, code=2)
    assert "--batch-size" in said
    assert "multiple of 2" in said
