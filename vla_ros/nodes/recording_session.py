"""`vla-ros record`: a recorder_node of its own beside a running stack, driven by keys or by the clock."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vla_ros.nodes.recorder_node import RecorderNode  # isort: skip # Settles the environment before rclpy is imported.

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vla_ros.errors import VlaRosError
from vla_ros.recording.episode import Outcome, episode_number, read_info

KEYS = "space or enter: start, stop   s: success   f: failure   d: discard   q: quit"
_TURN_S, _SETTLE_S = 0.05, 0.5
_OUTCOMES: dict[str, Outcome] = {
    " ": "unlabelled",
    "\r": "unlabelled",
    "\n": "unlabelled",
    "s": "success",
    "f": "failure",
}


@dataclass(frozen=True)
class SessionOptions:
    """How many episodes, and who ends them.

    Attributes:
        episodes: wanted in the end.
        seconds: each lasts; None for keys.
        outcome: of those that the clock ends.
        pause_s: between two of those.
        timeout_s: until everything that the rig promises has to be heard.
    """

    episodes: int
    seconds: float | None
    outcome: Outcome
    pause_s: float
    timeout_s: float


def record(words: list[str], options: SessionOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Records episodes until there are enough, or somebody quits.

    Args:
        words: ROS arguments of the recorder: its parameters and namespace.
        options: how many, and how long.
        say: called with what happens.

    Returns:
        `folder`, `episodes` (each `number`, `outcome`, `task`, `folder`, `duration_s`), `wanted`, `is_complete`.

    Raises:
        VlaRosError: if the stack isn't there, or an episode wasn't written.
    """
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RecorderNode()
        try:
            return _Session(node, options, say).run()
        finally:
            node.close()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


class _Session:
    def __init__(self, node: RecorderNode, options: SessionOptions, say: Callable[[str], None]) -> None:
        self._node, self._options, self._say = node, options, say
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._done: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        self._wait_for_stack()
        if self._options.seconds is not None:
            while len(self._done) < self._options.episodes:
                self._by_clock(self._options.seconds)
        else:
            with _keys() as key:
                self._by_keys(key)
        return {
            "folder": str(self._node.recorder.store.folder),
            "episodes": list(self._done.values()),
            "wanted": self._options.episodes,
            "is_complete": len(self._done) >= self._options.episodes,
        }

    def _wait_for_stack(self) -> None:
        """Raises VlaRosError if what the rig promises isn't published in time."""
        deadline_s = time.monotonic() + self._options.timeout_s
        while missing := self._node.intake.missing():
            if time.monotonic() > deadline_s:
                mend = "is the stack running, in this ROS_DOMAIN_ID and namespace? --timeout 0 records without them"
                raise VlaRosError(f"nobody publishes {', '.join(missing)}; {mend}")
            if self._options.timeout_s <= 0.0:
                self._say(f"recording without {', '.join(missing)}, which nobody publishes")
                return
            self._executor.spin_once(timeout_sec=_TURN_S)
        # Known isn't connected yet.
        self._rest(_SETTLE_S)

    def _by_clock(self, seconds: float) -> None:
        """One episode."""
        self._say(self._node.start())
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and self._node.recorder.info is not None:
            self._executor.spin_once(timeout_sec=min(_TURN_S, max(0.0, end_s - time.monotonic())))
        if self._node.recorder.info is None:
            # The disk, a failure or a service ended it.
            self._note()
            raise VlaRosError(self._node.problem or "the episode was ended by somebody else")
        self._say(self._node.end(self._options.outcome))
        self._note()
        self._rest(self._options.pause_s if len(self._done) < self._options.episodes else 0.0)

    def _rest(self, pause_s: float) -> None:
        end_s = time.monotonic() + pause_s
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=_TURN_S)

    def _by_keys(self, key: Callable[[], str]) -> None:
        self._say(KEYS)
        while True:
            self._executor.spin_once(timeout_sec=_TURN_S)
            pressed = key()
            is_open = self._node.recorder.info is not None
            is_enough = len(self._done) >= self._options.episodes
            if pressed == "q" or (is_enough and not is_open and pressed == "\r"):
                return
            try:
                if pressed and self._press(pressed, is_open):
                    self._note()
                    self._say(f"{len(self._done)} of {self._options.episodes} episodes")
                    if self._done and len(self._done) >= self._options.episodes:
                        self._say("these are all; s, f or d still label the last one, q ends")
            except VlaRosError as error:
                self._say(str(error))

    def _press(self, pressed: str, is_open: bool) -> bool:
        """Does what a key means; whether episodes changed."""
        if pressed == "d":
            last = self._node.last if not is_open else None
            self._say(self._node.discard())
            if last is not None:
                self._done.pop(last.name, None)
            return True
        if pressed not in _OUTCOMES:
            return False
        if not is_open and _OUTCOMES[pressed] == "unlabelled":
            self._say(self._node.start())
            return False
        self._say(self._node.end(_OUTCOMES[pressed]))
        return True

    def _note(self) -> None:
        """Keeps what became of the last episode."""
        folder = self._node.last
        if folder is None:
            return
        info = read_info(folder)
        self._done[folder.name] = {
            "number": episode_number(folder),
            "outcome": info.outcome,
            "task": info.task,
            "folder": str(folder),
            "duration_s": (info.ended_ns - info.started_ns) * 1e-9,
            "problem": info.recovered,
        }


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that gives the next key that was pressed, empty for none; the terminal is as before afterwards.

    Raises:
        VlaRosError: without a terminal.
    """
    if not sys.stdin.isatty():
        raise VlaRosError("keys need a terminal; --seconds S --outcome success records by the clock")
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def key() -> str:
        return sys.stdin.read(1) if select.select([sys.stdin], [], [], 0.0)[0] else ""

    try:
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
