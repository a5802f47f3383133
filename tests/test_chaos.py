"""The short version of `make chaos`: the real commands, killed, starved, damaged and crowded."""

from __future__ import annotations

import signal

import pytest

from tests.chaos import disk, flips, fuzz, kills, load
from tests.chaos.arena import Arena

needs_mount = pytest.mark.skipif(not disk.can_mount(), reason="mounting a small disk needs root")


@pytest.fixture(scope="module")
def arena(tmp_path_factory, forked):
    return Arena.create(tmp_path_factory.mktemp("chaos"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_build_cut_anywhere_is_finished_by_the_same_command(arena, number):
    assert kills.kill_index(arena, 6, number, seed=number).total() == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_training_cut_anywhere_ends_in_the_same_weights(arena, number):
    assert kills.kill_train(arena, 2, number, seed=number).total() == 2


@needs_mount
def test_a_full_disk_is_an_error_and_the_command_resumes(arena):
    assert disk.fill_index(arena, 4, seed=0)["found no room"] >= 2
    assert disk.fill_train(arena, 2, seed=0).total() == 2


@needs_mount
def test_an_index_that_cannot_be_written_trains(arena):
    disk.train_from_read_only(arena)


def test_a_flipped_bit_is_named_and_refused(arena):
    assert flips.flip_bits(arena, times=6, seed=0, each=False).total() == 6


def test_trainers_share_an_index_while_it_is_verified(arena):
    counts = load.share_index(arena, trainers=2, seconds=1)
    assert counts["training runs"] >= 2
    assert counts["verify runs"] >= 1


def test_damaged_and_awkward_inputs_end_in_success_or_an_error_of_our_own(arena, tmp_path):
    counts = fuzz.fuzz(tmp_path, arena.index, 1000, seed=1)
    assert counts["read"] > 50
    assert counts["read, with rejects"] > 50
    assert counts["InputError"] > 50
    assert counts["IndexFaultError"] > 50
