"""The entry point: from the first import on, Ctrl-C and SIGTERM end with one line and no traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

HOW_TO_GO_ON = {
    "index": "run the same command again to go on; finished parts are kept",
    "train": "run the same command with --resume to go on from the newest checkpoint",
}
# Shells give 128 and the signal's number to a process that a signal has ended.
SIGNALLED = 128


class Terminated(KeyboardInterrupt):
    """The process was told to end by SIGTERM."""


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _terminate)
    number = signal.SIGINT
    try:
        from .cli import run

        sys.exit(run())
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        for each in (signal.SIGINT, signal.SIGTERM):  # what follows is short and must not be cut
            signal.signal(each, signal.SIG_IGN)
        if "--debug" in sys.argv:
            raise
    how = next((HOW_TO_GO_ON[word] for word in sys.argv[1:] if word in HOW_TO_GO_ON), "run the same command again")
    sys.stderr.write(f"\nstopped; {how}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    # Threads that wait for work would make the interpreter wait for them; every file is whole or not there.
    os._exit(SIGNALLED + number)


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Terminated


if __name__ == "__main__":
    main()
