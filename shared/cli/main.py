"""The entry point: from the first import on, Ctrl-C and SIGTERM end with one line and no traceback."""

from __future__ import annotations

import os
import sys

from .signals import ignore_signals, install_handlers, received_signal

RESUME_ADVICE = {
    "index": "run the same command again to resume; finished shards are kept",
    "rescore": "run the same command again to resume; finished shards are kept",
    "train": "run the same command with --resume to continue from the newest checkpoint",
    "sweep": "run the same command again to resume; finished runs are kept, others continue from their checkpoints",
}
# A shell reports 128 and the signal's number for a process that a signal has ended.
SIGNAL_EXIT_CODE = 128


def main() -> None:
    """Run the command line and end the process with its exit code."""
    install_handlers()
    try:
        from .app import run

        code = run()
        ignore_signals()
    except BaseException:
        ignore_signals()
        number = received_signal()
        if number is None or "--debug" in sys.argv:
            raise
        _exit_after_signal(number)
    else:
        sys.exit(code)


def _exit_after_signal(number: int) -> None:
    """Say how to resume, and end at once: threads that wait for work would keep the interpreter alive."""
    advice = next((RESUME_ADVICE[word] for word in sys.argv[1:] if word in RESUME_ADVICE), "run the same command again")
    sys.stderr.write(f"\nstopped; {advice}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(SIGNAL_EXIT_CODE + number)


if __name__ == "__main__":
    main()
