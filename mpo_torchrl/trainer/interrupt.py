"""Ctrl-C as a request: the loop ends at a clean point, then the run is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal: note the first, let a second one interrupt at once."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a :class:`StopRequest` for the loop inside to read.

    Python lets the main thread alone handle signals; in another one the request never comes.

    Yields:
        StopRequest: ``received`` once a signal came; the second one interrupts at once.

    Examples:
        >>> with stop_request() as stop:
        ...     signal.raise_signal(signal.SIGINT)
        ...     stop.received
        True
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {
        signum: signal.signal(signum, request) for signum in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
