"""A device that is missing, and one whose memory is full, are errors of one line."""

from __future__ import annotations

import pytest
import torch
from gistcache.shared.errors import GistcacheError, SettingsError
from gistcache.shared.models.device import pick_device, within_memory


def test_an_available_device_is_returned_unchanged():
    assert pick_device("cpu") == "cpu"
    assert torch.empty(0, device=pick_device("auto")).numel() == 0


@pytest.mark.parametrize(
    "device",
    [
        "warp",
        "cuda:99",
        pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")),
    ],
)
def test_a_missing_device_is_refused_with_the_cause(device):
    with pytest.raises(SettingsError) as caught:
        pick_device(device)
    assert caught.value.where == "--device"
    assert caught.value.what.startswith(f"Device {device!r} is not available: ")
    assert len(caught.value.what.splitlines()) == 1


@pytest.mark.parametrize(("message", "where"), [("", "OutOfMemoryError"), ("\nfull\nof 8 GiB", "full")])
def test_a_full_memory_is_an_error_whatever_the_library_says(message, where):
    with pytest.raises(GistcacheError, match="out of memory") as caught, within_memory("give less"):
        raise torch.OutOfMemoryError(message)
    assert (caught.value.where, caught.value.fix) == (where, "give less")
