"""A chunk and a stop don't wait for the tick: safety_node and controller_node under their loop, without DDS."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from std_srvs.srv import Trigger

from vla_ros.geometry import se3
from vla_ros.nodes.controller_node import ControllerNode
from vla_ros.nodes.motion import MotionLoop
from vla_ros.nodes.runtime import now_ns
from vla_ros.nodes.safety_node import SafetyNode
from vla_ros.types import MotionState, RobotState, ToolChunk

pytestmark = pytest.mark.ros

PERIOD_S = 0.004
MOVED_RAD = 1e-7


class Path:
    """The motion path with an arm that is where it was told to be."""

    def __init__(self) -> None:
        self.controller, self.safety = ControllerNode(is_alone=False), SafetyNode()
        self.controller.start()
        self.home = self.controller._controller.model.home
        self.T_home = np.array(self.controller._controller.model.forward_kinematics(self.home))
        self.positions = self.home
        self.sent: list[tuple[float, float]] = []
        """Of each command, when it left, s, and how far it moved any joint, rad."""

        self.measure()
        self.controller._link.publish = self._hear
        self.node = MotionLoop(self.safety, self.controller)
        self.loop = self.node._loop
        self.rung_s: list[float] = []
        self.is_hurried = True
        self.safety.hurry = self._hurry

    def _hurry(self) -> None:
        self.rung_s.append(time.monotonic())
        if self.is_hurried:
            self.loop.hurry()

    def measure(self) -> None:
        self.safety.states.append(RobotState(now_ns(self.safety), self.positions, np.zeros(7)))

    def _hear(self, sending: Any, _stamp_ns: int) -> None:
        positions = sending.ticks[-1][1].positions
        self.sent.append((time.monotonic(), float(np.abs(positions - self.positions).max())))
        self.positions = positions
        self.measure()

    def offer(self, aside_m: float, age_s: float = 0.0) -> None:
        pose = se3.make_pose(self.T_home[:3, 3] + np.array([0.0, 0.0, aside_m]), self.T_home[:3, :3])
        stamp_ns = now_ns(self.safety) - round(age_s * 1e9)
        times_s = np.array([0.04, 0.08])
        self.safety._on_chunk(ToolChunk(stamp_ns, "absolute", np.stack([pose] * 2), None, times_s, "p"), stamp_ns)


@pytest.fixture
def path(ros_domain: int) -> Iterator[Path]:
    interval_s = sys.getswitchinterval()
    rclpy.init(args=["--ros-args", "-p", "robot:=panda", "-p", "source:=p"])
    path = Path()
    yield path
    nodes = (path.node, path.safety, path.controller)
    for node in nodes[:2]:
        node.close()
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    sys.setswitchinterval(interval_s)


def test_first_command_that_differs_leaves_at_once_and_not_with_the_grid(path: Path, patience) -> None:
    waits_s: dict[bool, list[float]] = {False: [], True: []}
    side = 0.002
    for trial in range(14):
        patience(lambda: len(path.sent) > 30 and max(moved for _, moved in path.sent[-10:]) < MOVED_RAD, "rest")
        path.is_hurried = trial % 2 == 0
        path.rung_s.clear()
        # Just after a tick, so that the next on the grid is nearly a period away.
        ticks = path.loop.ticks
        while path.loop.ticks == ticks:
            time.sleep(1e-4)
        before, side = len(path.sent), -side
        # Offered until it is taken: after a stall of the machine the filter waits for the arm first.
        patience(lambda side=side: path.rung_s or path.offer(side) or path.rung_s, "a chunk to be taken")
        patience(lambda before=before: max((m for _, m in path.sent[before:]), default=0.0) > MOVED_RAD, "motion")
        if path.rung_s:
            first_s = next(sent_s for sent_s, moved in path.sent[before:] if moved > MOVED_RAD)
            waits_s[path.is_hurried].append(first_s - path.rung_s[0])
        path.sent.clear()
    assert min(map(len, waits_s.values())) >= 5
    assert np.median(waits_s[True]) < 0.5 * np.median(waits_s[False])


def test_only_a_chunk_that_was_taken_and_a_stop_are_in_a_hurry(path: Path, patience) -> None:
    patience(lambda: len(path.sent) > 20 and not path.safety._waits_for, "the controller to follow")
    path.rung_s.clear()
    path.offer(0.002, age_s=30.0)
    assert path.rung_s == []
    patience(lambda: path.offer(0.002) or path.rung_s, "a chunk to be taken")
    assert len(path.rung_s) == 1
    path.safety._on_stop(Trigger.Request(), Trigger.Response())
    assert len(path.rung_s) == 2
    path.offer(-0.002)
    assert len(path.rung_s) == 2
    assert path.safety.filter.state is MotionState.STOPPED


def test_a_flood_of_chunks_neither_faults_nor_jumps_the_clock(path: Path, patience) -> None:
    patience(lambda: len(path.sent) > 20 and not path.safety._waits_for, "the controller to follow")
    # Where the nodes took long to start the filter begins with a fault.
    patience(lambda: path.rung_s or path.offer(0.002) or path.rung_s, "a chunk to be taken")
    stamps_ns: list[int] = []
    step = path.safety.step
    path.safety.step = lambda stamp_ns: stamps_ns.append(stamp_ns) or step(stamp_ns)  # type: ignore[method-assign]
    reasons: set[str] = set()
    side = 0.002

    def flood() -> bool:
        nonlocal side
        for _ in range(50):
            side = -side
            path.offer(side)
            time.sleep(5e-4)
            reasons.add(path.safety.filter._reason)
        return len(path.rung_s) > 150

    # As long as it takes: after a stall of the machine the filter takes none until the arm has come to rest.
    patience(flood, "150 chunks to be taken")
    assert not [reason for reason in reasons if "clock" in reason]
    # A machine that stands still for as long as that has no joint states either.
    assert path.loop.missed * PERIOD_S > 0.2 or not [reason for reason in reasons if "no joint state" in reason]
    steps_ns = np.diff(stamps_ns)
    np.testing.assert_array_equal(steps_ns % path.loop.period_ns, 0)
    assert steps_ns.min() == path.loop.period_ns
