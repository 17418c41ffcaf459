"""The operator's terminal: keys as they come, and one line that says how things are."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty

from vla_ros.errors import SensorError
from vla_ros.teleop.keyboard import decode_keys


class Terminal:
    """Reads keys one by one, without waiting and without their echo; Ctrl-C stays a signal.

    Args:
        mend: what to do without a terminal.

    Raises:
        SensorError: if standard input isn't a terminal.
    """

    def __init__(self, mend: str) -> None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise SensorError(f"the keyboard needs a terminal on standard input; {mend}")
        self._input = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input, termios.TCSANOW)
        self._rest = ""

    def take(self) -> list[str]:
        """The keys that have come.

        Raises:
            SensorError: if the terminal was closed.
        """
        text = b""
        while select.select([self._input], [], [], 0.0)[0]:
            try:
                part = os.read(self._input, 4096)
            except OSError as error:
                raise SensorError(f"the terminal can't be read any more ({error.strerror})") from error
            if not part:
                raise SensorError("the terminal was closed")
            text += part
        had_rest = bool(self._rest)
        keys, self._rest = decode_keys(self._rest + text.decode("utf-8", errors="ignore"))
        if had_rest and not text:
            self._rest = ""  # Escape alone: the rest of a sequence would have come along.
        return keys

    def close(self) -> None:
        """Gives the terminal back as it was."""
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._input, termios.TCSANOW, self._before)


class StatusLine:
    """One line on standard output that is written anew in its place, where that is a terminal; else nothing."""

    def __init__(self) -> None:
        self._is_shown = sys.stdout is not None and sys.stdout.isatty()
        self._is_open = False

    def say(self, text: str) -> None:
        """Lines that stay."""
        if self._is_shown:
            sys.stdout.write("\r\x1b[K" * self._is_open + f"{text}\n")
            sys.stdout.flush()

    def show(self, line: str) -> None:
        """The line in the place of the one before."""
        if self._is_shown:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\x1b[K{line[: width - 1]}")
            sys.stdout.flush()
            self._is_open = True

    def close(self) -> None:
        """Goes on below it."""
        if self._is_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_open = False
