"""The entry point: from the first import on, Ctrl-C and SIGTERM end with one line and no traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

HOW_TO_GO_ON = {
    "index": "run the same command again to go on; finished parts are kept",
    "rescore": "run the same command again to go on; finished parts are kept",
    "train": "run the same command with --resume to go on from the newest checkpoint",
    "sweep": "run the same command again to go on; finished runs are kept, the others go on from their checkpoints",
}
# Shells give 128 and the signal's number to a process that a signal has ended.
SIGNALLED = 128
AGAIN_SECONDS = 0.01

_told: list[int] = []


def told_to_stop() -> bool:
    """Whether Ctrl-C or SIGTERM has come: what fails from then on fails because of it."""
    return bool(_told)


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    sys.unraisablehook = _come_again
    try:
        from .app import run

        code = run()
        _ignore_signals()
    except BaseException:
        _ignore_signals()
        # An interruption inside some library's clean-up can come out as another error.
        if not told_to_stop() or "--debug" in sys.argv:
            raise
    else:
        sys.exit(code)
    how = next((HOW_TO_GO_ON[word] for word in sys.argv[1:] if word in HOW_TO_GO_ON), "run the same command again")
    sys.stderr.write(f"\nstopped; {how}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    # Threads that wait for work would make the interpreter wait for them; every file is whole or not there.
    os._exit(SIGNALLED + _told[0])


def _ignore_signals() -> None:
    """What follows is short and must not be cut."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _told.append(number)
    raise KeyboardInterrupt


def _come_again(dropped: UnraisableHookArgs) -> None:
    """Python drops what is raised while an object is cleaned up: an interruption then comes again, a moment later."""
    if told_to_stop() and isinstance(dropped.exc_value, KeyboardInterrupt):
        threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), _told[0])).start()
    else:
        sys.__unraisablehook__(dropped)


if __name__ == "__main__":
    main()
