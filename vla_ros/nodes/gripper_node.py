"""gripper_node: openings on `gripper/command` to a real gripper's driver, and its state to `gripper/state`."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from vla_ros.control.gripper_goals import Cancel, GripperTask, Outcome, Send
from vla_ros.nodes import messages
from vla_ros.nodes.gripper_link import GripperLink, link_to_gripper
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only, now_ns, run
from vla_ros.nodes.settings import hardware_setting, robot_setting

_PERIOD_S = 0.05
_SILENCE_S = 2.0


class GripperNode(Node):
    """Hands the newest wish on, and never waits for what becomes of it."""

    def __init__(self) -> None:
        super().__init__("gripper_node")
        robot = robot_setting(self)
        hardware_setting(self)
        self._gripper = robot.gripper
        self._driver = None if robot.driver is None else robot.driver.gripper
        self._link: GripperLink | None = None
        self._task = GripperTask(has_grasp=self._driver is not None and self._driver.kind == "franka")
        self._measured: float | None = None
        self._heard_s = -math.inf
        self._missing, self._said = "", ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_timer(1.0, self._report)
        if self._gripper is None or self._driver is None:
            self.get_logger().info(f"robot {robot.name} has no driver.gripper: somebody else serves gripper/command")
            return
        self._link = link_to_gripper(self, self._gripper, self._driver, self._on_accepted, self._on_ended)
        self._states = self.create_publisher(JointState, "gripper/state", RELIABLE)
        self.create_subscription(JointState, self._driver.states, self._on_states, SENSOR)
        self.create_subscription(Float64, "gripper/command", self._on_command, newest_only(RELIABLE))
        if self._task.has_grasp:
            self.create_service(Trigger, "gripper/homing", self._on_homing)
        self.create_timer(_PERIOD_S, self._step)

    def _on_command(self, message: Float64) -> None:
        opening = float(message.data)
        if math.isnan(opening):
            self.get_logger().error("gripper/command is NaN; ignored", throttle_duration_sec=2.0)
            return
        if not 0.0 <= opening <= 1.0:
            text = f"gripper/command is {opening:g}, taken for {min(max(opening, 0.0), 1.0):g}; openings are in [0, 1]"
            self.get_logger().warning(text, throttle_duration_sec=2.0)
        self._task = self._task.wishing(opening)
        self._step()

    def _on_states(self, message: JointState) -> None:
        if self._driver is None or self._gripper is None or self._driver.joint not in message.name:
            return  # Others' joints may come on the same topic.
        index = list(message.name).index(self._driver.joint)
        position = message.position[index] if index < len(message.position) else math.nan
        if not math.isfinite(position):
            return
        self._measured, self._heard_s = self._driver.opening(position), time.monotonic()
        self._states.publish(
            JointState(header=message.header, name=[self._gripper.joints[0]], position=[self._measured])
        )

    def _on_homing(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Has the fingers' ends found: they open and close all the way. /diagnostics says what comes of it."""
        self._task = self._task.homing()
        self._step()
        is_begun = self._task.wants_home
        response.success, response.message = is_begun, "homing; mind the fingers" if is_begun else self._missing
        return response

    def _step(self) -> None:
        if self._link is None:
            return
        self._missing = self._link.missing()
        self._task, action = self._task.step(time.monotonic(), not self._missing, self._measured)
        if isinstance(action, Send):
            self._link.send(action.goal, action.number)
        elif isinstance(action, Cancel):
            self._link.cancel(action.number)

    def _on_accepted(self, number: int) -> None:
        self._task = self._task.accepted(number)

    def _on_ended(self, number: int, outcome: Outcome, text: str) -> None:
        self._task = self._task.ended(number, outcome, text, time.monotonic())
        if outcome in ("failed", "refused") and self._task.problem:
            self.get_logger().error(f"gripper: {self._task.problem}", throttle_duration_sec=2.0)

    def _report(self) -> None:
        task, problem = self._task, self._missing or self._task.problem
        if not problem and self._driver is not None and time.monotonic() - self._heard_s > _SILENCE_S:
            topic = self.resolve_topic_name(self._driver.states)
            problem = f"no {self._driver.joint} on {topic} for {_SILENCE_S:g} s; does the gripper's driver run?"
        values: dict[str, Any] = {
            "wish": "none" if task.wish is None else task.wish,
            "opening": "unknown" if self._measured is None else self._measured,
            "goal": "none" if task.running is None else task.running.kind,
        }
        text = problem or ("homing" if task.wants_home else "moving" if task.running else "at rest")
        if self._driver is None:
            text = "served by somebody else"
        level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
        if problem and problem != self._said:
            self.get_logger().warning(problem)
        self._said = problem
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(messages.to_diagnostics(now_ns(self), name, text, values, level))

    def close(self) -> None:
        """Leaves the driver; the gripper finishes what it was told."""
        if self._link is not None:
            self._link.close()


def main() -> int:
    """Runs gripper_node."""
    return run(lambda: [GripperNode()])


if __name__ == "__main__":
    sys.exit(main())
