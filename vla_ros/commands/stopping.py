"""Ctrl-C and SIGTERM as a wish to end well, for what takes long."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Gives what says whether somebody wants it to end; a second signal ends it at once."""
    wished = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()
        print(f"\n{signal.Signals(number).name}: ending with a checkpoint; once more to end at once", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
