"""How the process ends after Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED = """
import signal, sys, types

def run(signals):
    try:
        signal.raise_signal({number})
    except KeyboardInterrupt as error:
        raise {raised}

sys.modules["gistcache.shared.cli.app"] = types.SimpleNamespace(run=run)
sys.argv = ["gistcache", "index"]
from gistcache.shared.cli.main import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("raised", ["", "RuntimeError('of a library') from error"])
def test_a_signal_ends_with_one_line_whatever_a_library_makes_of_it(number, raised):
    code = INTERRUPTED.format(number=int(number), raised=raised)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 128 + number
    assert process.stderr == "\nstopped; run the same command again to resume; finished shards are kept\n"
