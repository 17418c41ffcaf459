"""`vla-ros record`: a recorder_node of its own beside a running stack, driven by keys or by the clock."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.nodes.recorder_node import RecorderNode  # isort: skip # Settles the environment before rclpy is imported.

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vla_ros.errors import SensorError, VlaRosError
from vla_ros.recording.episode import Outcome, episode_number, read_info
from vla_ros.teleop.terminal import Terminal

KEYS = "space or enter: start, stop   s: success   f: failure   d: discard   q: quit"
_TURN_S, _SETTLE_S = 0.05, 0.5
_QUIT = ("q", "ctrl-c")
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
        with _ended_by_signals():
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

    @property
    def _count(self) -> int:
        """Episodes that are finished, whoever ended them: keys, the clock, a service or a full disk."""
        return len(self._node.finished)

    def run(self) -> dict[str, Any]:
        self._wait_for_stack()
        if self._options.seconds is not None:
            while self._count < self._options.episodes:
                self._by_clock(self._options.seconds)
        else:
            with _keys() as keys:
                self._by_keys(keys)
        return {
            "folder": str(self._node.recorder.store.folder),
            "episodes": [_describe(folder) for folder in self._node.finished],
            "wanted": self._options.episodes,
            "is_complete": self._count >= self._options.episodes,
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
            raise VlaRosError(self._node.problem or "the episode was ended by somebody else")
        self._say(self._node.end(self._options.outcome))
        self._rest(self._options.pause_s if self._count < self._options.episodes else 0.0)

    def _rest(self, pause_s: float) -> None:
        end_s = time.monotonic() + pause_s
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=_TURN_S)

    def _by_keys(self, keys: Callable[[], list[str]]) -> None:
        self._say(KEYS)
        told = 0
        while True:
            self._executor.spin_once(timeout_sec=_TURN_S)
            for key in keys():
                is_open = self._node.recorder.info is not None
                if key in _QUIT or (self._count >= self._options.episodes and not is_open and key in "\r\n"):
                    return
                try:
                    self._press(key, is_open)
                except VlaRosError as error:
                    self._say(str(error))
            if self._count != told:
                told = self._count
                self._say(f"{told} of {self._options.episodes} episodes")
                if told >= self._options.episodes:
                    self._say("these are all; s, f or d still label the last one, q ends")

    def _press(self, key: str, is_open: bool) -> None:
        """Does what a key means."""
        if key == "d":
            self._say(self._node.discard())
        elif key in _OUTCOMES and not is_open and _OUTCOMES[key] == "unlabelled":
            self._say(self._node.start())
        elif key in _OUTCOMES:
            self._say(self._node.end(_OUTCOMES[key]))


def _describe(folder: Path) -> dict[str, Any]:
    """What became of an episode."""
    info = read_info(folder)
    return {
        "number": episode_number(folder),
        "outcome": info.outcome,
        "task": info.task,
        "folder": str(folder),
        "duration_s": (info.ended_ns - info.started_ns) * 1e-9,
        "problem": info.recovered,
    }


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], list[str]]]:
    """A function that gives the keys that were pressed; the terminal is as before afterwards.

    Raises:
        VlaRosError: without a terminal.
    """
    terminal = Terminal("--seconds S --outcome success records by the clock")

    def keys() -> list[str]:
        try:
            return terminal.take()
        except SensorError:
            return ["q"]  # Whoever closes the terminal quits.

    try:
        yield keys
    finally:
        terminal.close()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, end things in order as Ctrl-C does, once: closing goes on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(_number: int, _frame: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
