"""A UR behind ur_robot_driver: its modes, its program, speed scaling, payload, and the way out of a protective stop."""

from __future__ import annotations

from geometry_msgs.msg import Vector3
from rclpy.node import Node
from std_msgs.msg import Bool, Float64
from std_srvs.srv import Trigger
from ur_dashboard_msgs.msg import RobotMode, SafetyMode
from ur_msgs.srv import SetPayload

from vla_ros.errors import VlaRosError
from vla_ros.hardware.faults import UR_NORMAL, UR_PROTECTIVE_STOP, UR_REDUCED, ur_reason
from vla_ros.nodes.driver_link import Heard
from vla_ros.nodes.runtime import LATCHED, SENSOR, newest_only
from vla_ros.nodes.service_calls import Service, Steps, wait_for
from vla_ros.robots.driver import DriverConfig

_UNLOCKED_S, _RUNNING_S = 5.0, 10.0


class UrLink:
    """ur_robot_driver's names, relative to the robot's namespace.

    Args:
        node: subscribes and calls.
        driver: what the robot's YAML says.
    """

    def __init__(self, node: Node, driver: DriverConfig) -> None:
        self._driver, self._heard = driver, Heard()
        self._safety_mode: int | None = None
        self._robot_mode: int | None = None
        self._is_program_running = False
        self.speed_scaling = 1.0
        io = "io_and_status_controller"
        node.create_subscription(SafetyMode, f"{io}/safety_mode", self._on_safety_mode, LATCHED)
        node.create_subscription(RobotMode, f"{io}/robot_mode", self._on_robot_mode, LATCHED)
        node.create_subscription(Bool, f"{io}/robot_program_running", self._on_program, LATCHED)
        scaling = "speed_scaling_state_broadcaster/speed_scaling"
        node.create_subscription(Float64, scaling, self._on_scaling, newest_only(SENSOR))
        self._scaling_topic = node.resolve_topic_name(scaling)
        self._payload = Service(node, SetPayload, f"{io}/set_payload")
        self._resend = Service(node, Trigger, f"{io}/resend_robot_program")
        self._play = Service(node, Trigger, "dashboard_client/play")
        self._unlock = Service(node, Trigger, "dashboard_client/unlock_protective_stop")

    @property
    def silence(self) -> str:
        """Why nothing is known of the arm, empty if it is."""
        if self._heard.is_silent:
            return f"nothing on {self._scaling_topic}; is ur_robot_driver running and connected?"
        if self._safety_mode is None or self._robot_mode is None:
            return "io_and_status_controller has told no modes; is it active?"
        return ""

    @property
    def fault(self) -> str:
        """Why the arm can't be led, empty if it can."""
        return ur_reason(self._safety_mode or 0, self._robot_mode or 0, self._is_program_running)

    def apply_settings(self) -> Steps:
        """The payload."""
        payload = self._driver.payload
        if payload is None:
            return
        x, y, z = payload.centre_of_mass_m
        request = SetPayload.Request(mass=payload.mass_kg, center_of_gravity=Vector3(x=x, y=y, z=z))
        yield from self._payload.set(request)

    def recover(self) -> Steps:
        """Unlocks a protective stop (a UR lets that happen 5 s after it at the soonest) and lets the program go on."""
        if self._safety_mode == UR_PROTECTIVE_STOP:
            yield from self._unlock.trigger()
            yield from wait_for(
                lambda: self._safety_mode in (UR_NORMAL, UR_REDUCED), _UNLOCKED_S, "the protective stop isn't unlocked"
            )
        if self._is_program_running:
            return
        # In headless mode the driver sends the program; else it lies on the arm and is played.
        try:
            yield from self._resend.trigger()
        except VlaRosError as refusal:
            try:
                yield from self._play.trigger()
            except VlaRosError as error:
                problem = f"{refusal}; {error}; press Play on the teach pendant, then call hardware/recover again"
                raise VlaRosError(problem) from error
        problem = "External Control doesn't run; press Play on the teach pendant"
        yield from wait_for(lambda: self._is_program_running, _RUNNING_S, problem)

    def _on_safety_mode(self, message: SafetyMode) -> None:
        self._safety_mode = int(message.mode)

    def _on_robot_mode(self, message: RobotMode) -> None:
        self._robot_mode = int(message.mode)

    def _on_program(self, message: Bool) -> None:
        self._is_program_running = bool(message.data)

    def _on_scaling(self, message: Float64) -> None:
        self._heard.note()
        # Per cent.
        self.speed_scaling = min(max(float(message.data) / 100.0, 0.0), 1.0)
