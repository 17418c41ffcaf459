"""How far a command is, for who waits."""

from __future__ import annotations

import sys
import time

_SILENT_S = 2.0
_BAR = 30


class Progress:
    """A bar on standard error for what takes longer than two seconds; on a terminal it stays on its line."""

    def __init__(self) -> None:
        self._part, self._since_s, self._shown = "", 0.0, -1
        self._shown_s = 0.0
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, part: str, fraction: float, note: str = "") -> None:
        """Shows how far a part of the work is.

        Args:
            part: its name; another one begins a bar of its own.
            fraction: of it that is done.
            note: shown behind the bar.
        """
        now_s = time.monotonic()
        if part != self._part:
            self.end()
            self._part, self._since_s, self._shown = part, now_s, -1
        percent = int(100.0 * min(1.0, max(0.0, fraction)))
        # Lines in a log are fewer than a bar's steps.
        step = percent if self._is_terminal else percent - percent % 25
        # A note changes faster than a bar.
        is_news = step != self._shown or (bool(note) and self._is_terminal and now_s - self._shown_s >= 1.0)
        if now_s - self._since_s < _SILENT_S or not is_news:
            return
        self._shown, self._shown_s = step, now_s
        done = _BAR * percent // 100
        text = f"{part:16} [{'#' * done}{'.' * (_BAR - done)}] {percent:3d} % {note}".rstrip()
        print(f"\r{text}\x1b[K" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """Leaves the line of the bar."""
        if self._is_terminal and self._shown >= 0:
            print(file=sys.stderr)
        self._shown = -1


def tell_stop(signal_name: str) -> None:
    """Says that a training was told to end, and how it will."""
    print(f"\n{signal_name}: ending with a checkpoint; once more to end at once", file=sys.stderr)
