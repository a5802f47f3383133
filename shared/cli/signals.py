"""Ctrl-C and SIGTERM: a handler that raises KeyboardInterrupt, and the record of the signal that came."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []


def install_handlers() -> None:
    """Raise KeyboardInterrupt in the main thread at either signal."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Ignore both signals from now on, where the process is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def received_signal() -> int | None:
    """The number of the first signal that came; None if there was none.

    An error after a signal is a consequence of it: an interruption inside a library can come out as another exception.
    """
    return _received[0] if _received else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    _received.append(number)
    raise KeyboardInterrupt
