"""How the process ends when it is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# A command that is told to stop while it cleans up an object, where Python drops whatever is raised.
CLEANING_UP = """
import signal, sys, threading, types

class Cleaned:
    def __del__(self):
        signal.raise_signal({number})

def run():
    Cleaned()
    for thread in threading.enumerate():  # the one that brings the interruption again; where there is none it was lost
        if thread is not threading.main_thread():
            thread.join()
    return 0

sys.modules["gistcache.shared.cli.app"] = types.SimpleNamespace(run=run)
sys.argv = ["gistcache", "index"]
from gistcache.shared.cli.main import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_an_object_is_cleaned_up_is_not_lost(number):
    ended = subprocess.run(
        [sys.executable, "-c", CLEANING_UP.format(number=int(number))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 128 + number
    assert ended.stderr == "\nstopped; run the same command again to go on; finished parts are kept\n"
