"""The short version of `make chaos`: the real commands, killed, starved, damaged and crowded."""

from __future__ import annotations

import os
import signal

import pytest

from tests.chaos import commands, disk, flips, fuzz, kills, load
from tests.conftest import make_model

needs_mount = pytest.mark.skipif(not disk.can_mount(), reason="mounting a small disk needs root")


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    """A folder with a guide, a student and a finished index, and the server that commands are forked from."""
    folder = tmp_path_factory.mktemp("chaos")
    before = dict(os.environ)
    commands.start_server(folder / "cache")
    os.environ.clear()
    os.environ.update(before)
    guide = make_model(folder / "guide", dim=32, seed=1)
    student = make_model(folder / "student", dim=16, layers=4, seed=2)
    kills.write_corpus(folder)
    commands.finish(*kills.index_words(guide, "index"), cwd=folder)
    return folder, guide, student


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_build_cut_anywhere_is_finished_by_the_same_command(arena, number):
    folder, guide, _ = arena
    assert kills.kill_index(folder, guide, 6, number, seed=number).total() == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_training_cut_anywhere_ends_in_the_same_weights(arena, number):
    folder, _, student = arena
    assert kills.kill_train(folder, folder / "index", student, 2, number, seed=number).total() == 2


@needs_mount
def test_a_full_disk_is_told_and_gone_on_from(arena):
    folder, guide, student = arena
    assert disk.fill_index(folder, guide, 4, seed=0)["found no room"] >= 2
    assert disk.fill_train(folder, folder / "index", student, 2, seed=0).total() == 2


@needs_mount
def test_an_index_that_cannot_be_written_trains(arena):
    disk.train_from_read_only(*arena)


def test_a_flipped_bit_is_named_and_refused(arena):
    assert flips.flip_bits(*arena, times=6, seed=0, each=False).total() == 6


def test_trainers_share_an_index_while_it_is_verified(arena):
    done = load.share_index(*arena, trainers=2, seconds=1)
    assert done["training runs"] >= 2
    assert done["verify runs"] >= 1


def test_damaged_and_awkward_inputs_end_in_success_or_an_error_of_our_own(arena, tmp_path):
    folder, _, _ = arena
    found = fuzz.fuzz(tmp_path, folder / "index", 1000, seed=1, bombs=False)
    assert found["read"] > 50
    assert found["read, with rejects"] > 50
    assert found["InputError"] > 50
    assert found["IndexFaultError"] > 50
