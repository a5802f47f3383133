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
        # A library can make any exception of an interruption.
        if not signals or "--debug" in sys.argv:
            raise
        name = next((word for word in sys.argv[1:] if word in RESUME_ADVICE), "")
        sys.stderr.write(f"\nstopped; {RESUME_ADVICE.get(name, 'run the same command again')}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        # At once: threads that wait for work would keep the interpreter alive. The code is that of a shell.
        os._exit(128 + signals[0])
    else:
        sys.exit(code)


def _handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


if __name__ == "__main__":
    main()
