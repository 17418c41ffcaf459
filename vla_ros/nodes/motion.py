"""motion: safety_node and controller_node in one process, stepped by one loop; the whole motion path."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from vla_ros.errors import VlaRosError
from vla_ros.nodes import messages
from vla_ros.nodes.controller_node import ControllerNode
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.runtime import RELIABLE, now_ns, raise_priority, run
from vla_ros.nodes.safety_node import SafetyNode
from vla_ros.nodes.settings import SHARED


class MotionLoop(Node):
    """Steps filter and controller in turn and reports on the loop.

    A chunk or a stop doesn't wait for its tick: that comes at once, up to a period before its stamp. Commands that
    carry their times, as trajectories do, lose nothing by it. An arm that takes positions or velocities as they come
    gets this one up to a period early and the next up to two periods after it; it is then ahead by at most the way of
    one tick, as much as lies between any two points.

    Args:
        safety: the filter.
        controller: the controller.
    """

    def __init__(self, safety: SafetyNode, controller: ControllerNode) -> None:
        super().__init__("motion_loop")
        self._safety, self._controller = safety, controller
        rate_hz = controller.config.rate_hz
        self._loop = TickLoop(rate_hz, self._tick, lambda: now_ns(self), self._on_clock_jump, safety.on_stall)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_timer(1.0, self._report)
        self._loop.start()
        safety.hurry = self._loop.hurry

    def _tick(self, stamp_ns: int, is_newest: bool) -> None:
        self._safety.await_controller(self._controller.waits_for)
        self._safety.filter.watch.is_led = self._controller.is_armed
        target = self._safety.step(stamp_ns)
        self._controller.is_astray = self._safety.filter.watch.is_astray
        self._controller.observe(self._safety.states.newest())
        self._controller.step(stamp_ns, is_newest, target)
        if is_newest:
            self._safety.finish_tick(stamp_ns)

    def _on_clock_jump(self, jump_ns: int) -> None:
        self._safety.on_clock_jump(jump_ns)
        self._controller.on_clock_jump(jump_ns)

    def _report(self) -> None:
        loop = self._loop
        loop.check()
        values = {
            "rate_hz": loop.achieved_hz,
            "ticks": loop.ticks,
            "missed": loop.missed,
            "tick_p50_s": loop.busy_s.at(0.5),
            "tick_p99_s": loop.busy_s.at(0.99),
            "late_p99_s": loop.lateness_s.at(0.99),
        }
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), f"{loop.achieved_hz:.1f} Hz", values)
        )

    def close(self) -> None:
        """Brakes, then ends the loop."""
        self._controller.brake()
        self._loop.stop()


def _make() -> Sequence[Node]:
    controller = ControllerNode(is_alone=False)
    safety = SafetyNode()
    for what in SHARED:
        values = [str(node.get_parameter(what).value) for node in (safety, controller)]
        if values[0] != values[1]:
            raise VlaRosError(f"safety_node has {what} {values[0]!r}, controller_node {values[1]!r}; make them one")
    controller.start()
    safety.start()
    return [MotionLoop(safety, controller), safety, controller]


def main() -> int:
    """Runs the motion path."""
    raise_priority()
    return run(_make)


if __name__ == "__main__":
    sys.exit(main())
