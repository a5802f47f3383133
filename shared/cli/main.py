"""The entry point: from the first import on, Ctrl-C and SIGTERM end with one line and no traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

RESUME_ADVICE = {
    "index": "run the same command again to resume; finished shards are kept",
    "rescore": "run the same command again to resume; finished shards are kept",
    "train": "run the same command with --resume to continue from the newest checkpoint",
    "sweep": "run the same command again to resume; finished runs are kept, others continue from their checkpoints",
}


def main() -> None:
    """Run the command line and end the process with its exit code."""
    signals: list[int] = []  # in the order in which they came

    def interrupt(number: int, _: FrameType | None) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    _handle_signals(interrupt)
    try:
        from .app import run

        code = run(signals)
        _handle_signals(signal.SIG_IGN)
    except BaseException:
        _handle_signals(signal.SIG_IGN)
        # An interruption inside a library can come out as any exception.
        if not signals or "--debug" in sys.argv:
            raise
        _exit_after_signal(signals[0])
    else:
        sys.exit(code)


def _handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _exit_after_signal(number: int) -> None:
    """Say how to resume, and end at once: threads that wait for work would keep the interpreter alive."""
    advice = next((RESUME_ADVICE[word] for word in sys.argv[1:] if word in RESUME_ADVICE), "run the same command again")
    sys.stderr.write(f"\nstopped; {advice}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(128 + number)  # as a shell reports a process that a signal has ended


if __name__ == "__main__":
    main()
