"""The operator's terminal: keys as they come, and one line that says how things are."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Sequence

from vla_ros.errors import SensorError
from vla_ros.teleop.keyboard import decode_keys


class Terminal:
    """Reads keys one by one, without waiting and without their echo; Ctrl-C stays a signal.

    Raises:
        SensorError: if standard input isn't a terminal.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        if not os.isatty(self._input):
            mend = "run `vla-ros teleop --device keyboard` in one; launch files start every other device"
            raise SensorError(f"the keyboard needs a terminal on standard input; {mend}")
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input, termios.TCSANOW)
        self._rest = ""
        self._is_line_open = False

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
        if self._is_line_open:
            write_text("\n")
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._input, termios.TCSANOW, self._before)

    def show(self, line: str) -> None:
        """Puts one line in the place of the one before."""
        width = shutil.get_terminal_size().columns
        write_text(f"\r\x1b[K{line[: width - 1]}")
        self._is_line_open = True


def write_text(text: str) -> None:
    """To standard output at once, for a person."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_lines(lines: Sequence[str]) -> None:
    """Some lines."""
    write_text("".join(f"{line}\n" for line in lines))
