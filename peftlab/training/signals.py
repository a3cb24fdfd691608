"""SIGINT and SIGTERM as a wish to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """The first signal that asked to stop, or 0."""

    def __init__(self) -> None:
        self.signal_number = 0

    def asked(self) -> bool:
        """Say whether a signal came."""
        return self.signal_number != 0


@contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """Note SIGINT and SIGTERM for the time of the block instead of ending the process; a second one ends it at once."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 the handler's signature
        wish.signal_number = number
        signal.signal(number, former[signal.Signals(number)])

    for number in former:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
