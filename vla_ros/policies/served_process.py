"""`vla-ros serve` in another environment's Python: started from here, and ended with this process.

This copy of vla_ros is lent to it through a folder that holds nothing else.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from vla_ros.errors import VlaRosError
from vla_ros.policies.environment import Environment, child_environ, look_through

_STOP_TIMEOUT_S = 5.0
_LINES_KEPT = 40

# Standard input is a pipe from the parent: when that ends, however it ends, the pipe does too.
_SERVE = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import os, threading
def end_with_parent():
    while os.read(0, 1):
        pass
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
from vla_ros.cli import main
sys.exit(main(sys.argv[1:]))
"""


class ServerStartError(VlaRosError):
    """A policy server in another environment that ended, or wasn't ready in time."""


@dataclass
class _Said:
    """What the other process printed."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))
    url: str = ""
    has_url_or_ended: threading.Event = field(default_factory=threading.Event)


class ServedProcess:
    """`vla-ros WORDS...` run by another environment's Python. It ends when this process does, or with `close`.

    Args:
        environment: from `look_through`.
        words: arguments of `vla-ros`, such as `serve`.
        on_line: called with every line that it prints, from a thread of its own.
    """

    def __init__(
        self, environment: Environment, words: Sequence[str], on_line: Callable[[str], None] | None = None
    ) -> None:
        self._lent = tempfile.TemporaryDirectory(prefix="vla_ros_lent_")
        lent = Path(self._lent.name)
        (lent / "vla_ros").symlink_to(Path(__file__).resolve().parents[1], target_is_directory=True)
        self._said = _Said()
        self._process = subprocess.Popen(
            [str(environment.python), "-u", "-c", _SERVE, *words],
            env=child_environ(lent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=_read, args=(self._process, self._said, on_line), daemon=True)
        self._reader.start()
        self._finalizer = weakref.finalize(self, _end, self._process, self._lent)
        self._name = f"vla-ros {' '.join(words)} in {environment.prefix}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that it printed."""
        return tuple(self._said.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self._process.wait()
        self._reader.join(_STOP_TIMEOUT_S)
        return code

    def wait_for_url(self, timeout_s: float) -> str:
        """Where it listens, once it says so, as `serve --json` does.

        Raises:
            ServerStartError: with the last thing it said, if it ended or isn't ready in time.
        """
        is_told = self._said.has_url_or_ended.wait(timeout_s)
        if self._said.url:
            return self._said.url
        if is_told:
            raise ServerStartError(f"{self._name} ended with code {self.wait()}: {self.last_line}")
        last_line = self.last_line
        self.close()
        raise ServerStartError(
            f"{self._name} wasn't ready after {timeout_s:g} s; its last line was {last_line!r}; "
            "give it more time, or start it by hand and look"
        )

    def close(self) -> None:
        """Ends it."""
        self._finalizer()

    def __enter__(self) -> ServedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_line(self) -> str:
        """The last thing that it said."""
        said = [line for line in self.lines if line.strip()]
        return said[-1].removeprefix("vla-ros: ") if said else "it said nothing"


def serve_in(where: str | Path, words: Sequence[str], on_line: Callable[[str], None]) -> int:
    """Runs `vla-ros WORDS...`, a `serve`, in another environment until it ends: `vla-ros serve --in-env WHERE`.

    Returns:
        Its exit code.

    Raises:
        ConfigError, MissingDependencyError: see `look_through`.
    """
    with ServedProcess(look_through(where, "a policy server there"), words, on_line) as process:
        return process.wait()


def _url_in(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    return str(said.get("url", "")) if isinstance(said, dict) else ""


def _read(process: subprocess.Popen[str], said: _Said, on_line: Callable[[str], None] | None) -> None:
    for line in process.stdout or ():
        said.lines.append(line.rstrip())
        if line.startswith("{") and not said.url:
            said.url = _url_in(line)
            if said.url:
                said.has_url_or_ended.set()
        if on_line is not None:
            on_line(line.rstrip())
    said.has_url_or_ended.set()


def _end(process: subprocess.Popen[str], lent: tempfile.TemporaryDirectory[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
    lent.cleanup()
