"""hardware_node: stands between an arm's driver and the motion path, and says whether the arm may be led.

Before that it looks at everything in its order, tells the arm its payload and thresholds, and activates its controller.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import WrenchStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.hardware.readiness import HardwareState, Readiness
from vla_ros.nodes import messages
from vla_ros.nodes.controller_manager import ControllerManagerClient
from vla_ros.nodes.driver_link import link_to_driver
from vla_ros.nodes.hardware_checks import HardwareChecks
from vla_ros.nodes.runtime import LATCHED, RELIABLE, SENSOR, now_ns, parameter, run
from vla_ros.nodes.service_calls import Steps
from vla_ros.nodes.settings import command_setting, rig_setting, robot_setting
from vla_ros.robots.driver import WrenchLimit

POLL_HZ = 40.0
"""How often it looks for messages; forces are watched as often."""

_PERIOD_S, _TELL_S, _RETRY_S = 0.1, 0.2, 2.0
_FREE_IT = "free it, then call hardware/recover"


class HardwareNode(Node):
    """Looks ten times a second, and goes through the steps that lead to an arm that may be led, or out of a fault."""

    def __init__(self) -> None:
        super().__init__("hardware_node")
        robot = robot_setting(self)
        driver = robot.driver
        if driver is None:
            mend = "add it (docs/hardware.md), or use hardware:=sim"
            raise ConfigError(f"robot {robot.name}", "has no `driver` in its YAML", mend)
        rig = rig_setting(self)
        with_cameras = bool(parameter(self, "cameras", True, "whether the rig's cameras have to send"))
        policy = str(parameter(self, "policy", "", "whether policy_node has to be active: its policy's name"))
        command = command_setting(self, robot)
        self._link = link_to_driver(self, robot, driver)
        controller = command.topic.partition("/")[0]
        self._manager = ControllerManagerClient(self, driver.controller_manager, controller, robot.joint_names)
        topic = self.resolve_topic_name(command.topic)
        self._checks = HardwareChecks(self, robot, rig, self._link, self._manager, topic, policy, with_cameras)
        self._readiness = Readiness(self._checks.in_order())
        self._start: Steps | None = None
        self._retry_s = 0.0
        self._recovery: tuple[Steps, Future] | None = None
        self._told: str | None = None
        self._told_s = 0.0
        self._state = self.create_publisher(String, "hardware/state", LATCHED)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        # Apart from the timers, which it waits for.
        apart = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "hardware/recover", self._on_recover, callback_group=apart)
        if driver.wrench is not None:
            limit = driver.wrench
            self.create_subscription(WrenchStamped, limit.topic, lambda m: self._on_wrench(m, limit), SENSOR)
        self.create_timer(_PERIOD_S, self._tick)
        self.create_timer(1.0, self._publish_diagnostics)

    def _tick(self) -> None:
        if self._recovery is not None:
            self._go_on_recovering(*self._recovery)
        self._readiness.look()
        if not self._readiness.has_started and self._recovery is None:
            self._go_on_starting()
        self._tell()

    def _on_wrench(self, message: WrenchStamped, limit: WrenchLimit) -> None:
        force, torque = message.wrench.force, message.wrench.torque
        problem = limit.problem((force.x, force.y, force.z), (torque.x, torque.y, torque.z))
        if problem and self._readiness.has_started:
            self._readiness.fault(f"{problem}; {_FREE_IT}")

    def _go_on_starting(self) -> None:
        """Settings and controller, as soon as what comes before them holds."""
        results = self._readiness.results
        if results["driver"] or results["arm"] or results["joint_states"]:
            self._start = None
            return
        if self._start is None:
            is_needed = self._checks.settings or self._checks.activation
            if not is_needed or time.monotonic() < self._retry_s:
                return
            self._start = self._starting()
        try:
            next(self._start)
        except StopIteration:
            self._start = None
        except VlaRosError as error:
            self._start, self._retry_s = None, time.monotonic() + _RETRY_S
            if self._checks.settings:
                self._checks.settings = str(error)
            else:
                self._checks.activation = str(error)

    def _starting(self) -> Steps:
        if self._checks.settings:
            yield from self._link.apply_settings()
            self._checks.settings = ""
        yield from self._manager.activate()
        self._checks.activation = ""

    async def _on_recover(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._recovery is not None:
            response.success, response.message = False, "a recovery is on its way already"
            return response
        reason = self._readiness.reason
        if not reason:
            response.success, response.message = True, "there is nothing to recover from"
            return response
        self.get_logger().info(f"recovering, as asked, from: {reason}")
        # A force or a lost controller is no fault of the driver's.
        self._recovery = (self._link.recover() if self._link.fault else iter(()), Future())
        problem = await self._recovery[1]
        response.success, response.message = not problem, problem or "recovered; the next chunk moves the arm"
        return response

    def _go_on_recovering(self, steps: Steps, done: Future) -> None:
        problem = ""
        try:
            next(steps)
            return
        except StopIteration:
            self._readiness.recover()
            self._checks.begin_anew()
        except VlaRosError as error:
            problem = str(error)
            self.get_logger().error(f"recovery failed: {problem}")
        self._recovery = None
        done.set_result(problem)

    def _tell(self) -> None:
        reason, cause, now_s = self._readiness.reason, self._readiness.cause, time.monotonic()
        is_new = cause != self._told
        if not is_new and now_s - self._told_s < _TELL_S:
            return
        stamp_ns = now_ns(self)
        if is_new:
            if reason:
                self.get_logger().warning(f"the arm isn't led: {reason}")
            else:
                self.get_logger().info("the arm may be led: all checks hold")
            event = {"event": "hardware", "is_ready": not reason, "reason": reason, "stamp_ns": stamp_ns}
            self._events.publish(String(data=json.dumps(event)))
        self._told, self._told_s = cause, now_s
        results = dict(self._readiness.results)
        state = HardwareState(not reason, reason, self._link.speed_scaling, stamp_ns, results)
        self._state.publish(String(data=state.to_json()))

    def _publish_diagnostics(self) -> None:
        reason, warnings = self._readiness.reason, self._readiness.warnings
        level = DiagnosticStatus.ERROR if reason else DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
        text = reason or warnings or "the arm may be led"
        values: dict[str, Any] = {name: problem or "ok" for name, problem in self._readiness.results.items()}
        values["speed_scaling"] = self._link.speed_scaling
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(messages.to_diagnostics(now_ns(self), name, text, values, level))


def main() -> int:
    """Runs hardware_node."""
    return run(lambda: [HardwareNode()], poll_hz=POLL_HZ)


if __name__ == "__main__":
    sys.exit(main())
