"""What nodes print: collected by one thread, line by line, shown with the node's name before it, kept in log files."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_CHUNK_BYTES = 65536
_LONGEST_LINE_BYTES = 65536


def show(label: str, line: str, *, is_error: bool = False) -> None:
    """Prints one line with a name before it. A terminal that has gone away is no reason to end."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        print(f"[{label}] {line}", file=sys.stderr if is_error else sys.stdout, flush=True)


@dataclass
class _Stream:
    pipe: IO[bytes]
    take: Callable[[str], None]
    rest: bytes = field(default=b"")


class OutputReader:
    """Reads any number of pipes until each has ended.

    Args:
        folder: where `<label>.log` files go; None keeps none.
        is_quiet: whether nothing is shown on the screen.
    """

    def __init__(self, folder: Path | None, *, is_quiet: bool) -> None:
        self.newest_errors: dict[str, str] = {}
        """The last line on standard error, by label."""

        self._folder, self._is_quiet = folder, is_quiet
        self._logs: dict[str, IO[str]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._new: list[_Stream] = []
        self._lock = threading.Lock()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="node output", daemon=True)
        self._thread.start()

    def add(self, label: str, pipe: IO[bytes], *, is_error: bool, output: str) -> None:
        """Reads a pipe from now on.

        Args:
            label: name shown before each line.
            pipe: read end.
            is_error: whether it is a standard error.
            output: the node's `output`; `log` keeps standard output off the screen where a log file has it.
        """
        is_shown = not self._is_quiet and (is_error or output != "log" or self._folder is None)

        def take(line: str) -> None:
            if is_error and line.strip():
                self.newest_errors[label] = line
            if is_shown:
                show(label, line, is_error=is_error)
            if self._folder is not None:
                self._log(self._folder, label).write(line + "\n")

        with self._lock:
            self._new.append(_Stream(pipe, take))
        os.write(self._wake_write, b".")

    def close(self, timeout_s: float) -> None:
        """Waits until all pipes have ended, at most `timeout_s`."""
        self._is_closing = True
        os.write(self._wake_write, b".")
        self._thread.join(timeout_s)

    def _log(self, folder: Path, label: str) -> IO[str]:
        if label not in self._logs:
            path = folder / f"{label.replace('/', '_')}.log"
            self._logs[label] = path.open("a", encoding="utf-8", buffering=1)
        return self._logs[label]

    def _run(self) -> None:
        while len(self._selector.get_map()) > 1 or self._new or not self._is_closing:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, _CHUNK_BYTES)
                else:
                    self._read(key.data)
            with self._lock:
                new, self._new = self._new, []
            for stream in new:
                self._selector.register(stream.pipe, selectors.EVENT_READ, stream)
        for log in self._logs.values():
            log.close()

    def _read(self, stream: _Stream) -> None:
        chunk = os.read(stream.pipe.fileno(), _CHUNK_BYTES)
        *lines, stream.rest = (stream.rest + chunk).split(b"\n")
        if stream.rest and (not chunk or len(stream.rest) > _LONGEST_LINE_BYTES):
            lines.append(stream.rest)
            stream.rest = b""
        for line in lines:
            stream.take(line.decode(errors="replace").rstrip("\r"))
        if not chunk:
            self._selector.unregister(stream.pipe)
            stream.pipe.close()
