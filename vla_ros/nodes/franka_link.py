"""A Franka behind franka_ros2: its robot state, thresholds and error recovery."""

from __future__ import annotations

from franka_msgs.action import ErrorRecovery
from franka_msgs.msg import Errors, FrankaRobotState
from franka_msgs.srv import SetFullCollisionBehavior, SetJointStiffness, SetLoad
from rclpy.action import ActionClient
from rclpy.node import Node

from vla_ros.hardware.faults import franka_reason
from vla_ros.nodes.driver_link import Heard
from vla_ros.nodes.runtime import SENSOR, newest_only
from vla_ros.nodes.service_calls import Service, Steps, send_goal, wait_for
from vla_ros.robots.driver import DriverConfig

_RECOVERED_S = 3.0


class FrankaLink:
    """franka_ros2's names, relative to the robot's namespace.

    Args:
        node: subscribes and calls.
        driver: what the robot's YAML says.
    """

    speed_scaling = 1.0

    def __init__(self, node: Node, driver: DriverConfig) -> None:
        self._driver, self._heard = driver, Heard()
        self._mode, self._errors = 0, [""]
        topic = "franka_robot_state_broadcaster/robot_state"
        node.create_subscription(FrankaRobotState, topic, self._on_state, newest_only(SENSOR))
        self._topic = node.resolve_topic_name(topic)
        self._load = Service(node, SetLoad, "service_server/set_load")
        self._collision = Service(node, SetFullCollisionBehavior, "service_server/set_full_collision_behavior")
        self._stiffness = Service(node, SetJointStiffness, "service_server/set_joint_stiffness")
        self._recovery_name = node.resolve_service_name("action_server/error_recovery")
        self._recovery = ActionClient(node, ErrorRecovery, "action_server/error_recovery")

    @property
    def silence(self) -> str:
        """Why nothing is known of the arm, empty if it is."""
        if not self._heard.is_silent:
            return ""
        return (
            f"nothing on {self._topic}; is franka_ros2 running, and FCI active in Franka Desk? A reflex in motion ends "
            "its hardware component: start the driver again"
        )

    @property
    def fault(self) -> str:
        """Why the arm can't be led, empty if it can."""
        return franka_reason(self._mode, self._errors)

    def apply_settings(self) -> Steps:
        """Payload, collision thresholds and stiffness; a Franka takes them while no motion runs."""
        driver = self._driver
        if driver.payload is not None:
            request = SetLoad.Request(mass=driver.payload.mass_kg)
            request.center_of_mass = list(driver.payload.centre_of_mass_m)
            x, y, z = driver.payload.inertia_kg_m2
            request.load_inertia = [x, 0.0, 0.0, 0.0, y, 0.0, 0.0, 0.0, z]
            yield from self._load.set(request)
        if driver.collision_torque_nm or driver.collision_force_n:
            yield from self._collision.set(_thresholds(driver))
        if driver.joint_stiffness_nm_rad:
            yield from self._stiffness.set(
                SetJointStiffness.Request(joint_stiffness=list(driver.joint_stiffness_nm_rad))
            )

    def recover(self) -> Steps:
        """franka_ros2's automatic error recovery."""
        yield from send_goal(self._recovery, ErrorRecovery.Goal(), self._recovery_name)
        yield from wait_for(lambda: not self.fault, _RECOVERED_S, self.fault)

    def _on_state(self, message: FrankaRobotState) -> None:
        self._heard.note()
        self._mode = int(message.robot_mode)
        current = message.current_errors
        self._errors = [name for name in Errors.get_fields_and_field_types() if getattr(current, name)]


def _thresholds(driver: DriverConfig) -> SetFullCollisionBehavior.Request:
    """The same thresholds while it accelerates and while it doesn't, for contact (lower) and collision (upper).

    What isn't given stays at libfranka's examples' 20 N m and 20 N (examples_common.cpp).
    """
    torque = list(driver.collision_torque_nm) or [20.0] * 7
    force = list(driver.collision_force_n) or [20.0] * 6
    request = SetFullCollisionBehavior.Request()
    for bound in ("lower", "upper"):
        for phase in ("acceleration", "nominal"):
            setattr(request, f"{bound}_torque_thresholds_{phase}", torque)
            setattr(request, f"{bound}_force_thresholds_{phase}", force)
    return request
