"""Ctrl-C and SIGTERM as a wish to end well, for what takes long and what a sudden end would harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class SignalFlag:
    """A flag for signal handlers. An Event isn't one: a second signal, as `ros2 launch` sends it after the terminal's,
    waits for ever for the lock that the handler which it interrupts holds while it sets the event."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """Any thread, and any handler while another sets it."""
        self._is_set = True

    def clear(self) -> None:
        """As if nobody had."""
        self._is_set = False


@contextmanager
def stop_signals(told: Callable[[str], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Gives what says whether somebody wants it to end; a second signal ends it at once.

    A signal that is ignored, as in what a shell runs in the background, stays ignored; outside of the main thread,
    which alone hears signals, nobody wants it to end.

    Args:
        told: the first signal's name.
    """
    wished = SignalFlag()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()
        if told is not None:
            told(signal.Signals(number).name)

    is_main = threading.current_thread() is threading.main_thread()
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in heard if is_main}
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
