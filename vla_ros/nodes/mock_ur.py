"""ur_robot_driver in front of the simulated arm: program, safety mode, speed scaling, dashboard, and a Robotiq gripper.

Source: ur_robot_driver and ur_controllers (kilted), gpio_controller.cpp, dashboard_client_ros.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import WrenchStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, Float64
from std_srvs.srv import Trigger
from ur_dashboard_msgs.msg import RobotMode, SafetyMode
from ur_msgs.srv import SetPayload, SetSpeedSliderFraction

from vla_ros.hardware.ur_arm import UrArm
from vla_ros.nodes import messages
from vla_ros.nodes.mock_fingers import MockFingers
from vla_ros.nodes.mock_grippers import KnuckleGripper, PositionGripper
from vla_ros.nodes.runtime import RELIABLE, parameter
from vla_ros.nodes.sim_cell import SimCell
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.types import FloatArray, RobotState

_STATUS = "io_and_status_controller"
_LEAST_SLIDER = 0.01
# Whoever comes late hears the newest, and nothing older.
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class MockUr:
    """The robot's side, and what its driver says and serves.

    Args:
        node: publishes and serves.
        robot: the arm.
        cell: it stands in.
        fingers: of its gripper.
    """

    def __init__(self, node: Node, robot: RobotConfig, cell: SimCell, fingers: MockFingers) -> None:
        self._node, self._robot, self._cell = node, robot, cell
        self.arm = UrArm(robot)
        parameter(node, "mock.speed_scaling", 1.0, "by what the robot slows trajectories down, 0 to 1", is_fixed=False)
        self._program = node.create_publisher(Bool, f"{_STATUS}/robot_program_running", _LATCHED)
        self._safety = node.create_publisher(SafetyMode, f"{_STATUS}/safety_mode", _LATCHED)
        self._mode = node.create_publisher(RobotMode, f"{_STATUS}/robot_mode", _LATCHED)
        self._speed = node.create_publisher(Float64, "speed_scaling_state_broadcaster/speed_scaling", RELIABLE)
        self._wrench = node.create_publisher(WrenchStamped, "force_torque_sensor_broadcaster/wrench", RELIABLE)
        self._said: tuple[bool, int] | None = None
        self._mode.publish(RobotMode(mode=RobotMode.RUNNING))
        arm = self.arm
        for name, act in (
            (f"{_STATUS}/resend_robot_program", arm.start_program),
            ("dashboard_client/play", arm.start_program),
            ("dashboard_client/stop", self._stop),
            ("dashboard_client/unlock_protective_stop", arm.unlock),
            ("mock/protective_stop", self._protect),
        ):
            node.create_service(Trigger, name, self._locked(act))
        node.create_service(SetPayload, f"{_STATUS}/set_payload", self._set_payload)
        node.create_service(SetSpeedSliderFraction, f"{_STATUS}/set_speed_slider", self._set_slider)
        driver = robot.driver.gripper if robot.driver else None
        if driver is not None and robot.gripper is not None:
            if driver.kind == "position":
                PositionGripper(node, driver, self._set_opening)
            else:
                KnuckleGripper(node, driver, robot.gripper, fingers)

    def feel(self, _state: RobotState) -> None:
        """A physics step, with the cell's lock held."""
        self.arm.pass_time(TIMESTEP_S)

    def publish(self, _state: RobotState, wrench: FloatArray, stamp_ns: int) -> None:
        """Speed scaling and wrench now and then, and what is latched when it changes."""
        arm = self.arm
        arm.throttle = float(np.clip(self._node.get_parameter("mock.speed_scaling").value, 0.0, 1.0))
        self._speed.publish(Float64(data=100.0 * arm.speed))
        message = WrenchStamped(header=messages.header(stamp_ns, self._robot.base_frame))
        force, torque = message.wrench.force, message.wrench.torque
        force.x, force.y, force.z, torque.x, torque.y, torque.z = wrench.tolist()
        self._wrench.publish(message)
        said = arm.is_program_running, int(arm.safety_mode)
        if said != self._said:
            if arm.reason:
                self._node.get_logger().error(f"protective stop: {arm.reason}")
            self._said = said
            self._safety.publish(SafetyMode(mode=said[1]))
            self._program.publish(Bool(data=said[0]))

    def reset(self) -> None:
        """The arm is at home again, with the cell's lock held; a stop stays until it is unlocked."""

    def describe(self) -> dict[str, object]:
        """For /diagnostics."""
        arm = self.arm
        mode = f"{arm.safety_mode.name} {arm.reason}".strip()
        return {"mode": mode, "program running": arm.is_program_running, "ignored targets": arm.ignored}

    def _locked(self, act: Callable[[], tuple[bool, str]]) -> Callable[[Any, Any], Any]:
        def answer(_request: Any, response: Any) -> Any:
            with self._cell.lock:
                response.success, response.message = act()
            return response

        return answer

    def _stop(self) -> tuple[bool, str]:
        self.arm.stop_program()
        return True, "Stopped"

    def _protect(self) -> tuple[bool, str]:
        self.arm.protective_stop("asked for by mock/protective_stop")
        return True, "protective stop"

    def _set_opening(self, opening: float) -> None:
        with self._cell.lock:
            self._cell.world.set_gripper_command(opening)

    def _set_payload(self, request: SetPayload.Request, response: SetPayload.Response) -> SetPayload.Response:
        response.success = request.mass >= 0.0
        return response

    def _set_slider(
        self, request: SetSpeedSliderFraction.Request, response: SetSpeedSliderFraction.Response
    ) -> SetSpeedSliderFraction.Response:
        response.success = _LEAST_SLIDER <= request.speed_slider_fraction <= 1.0
        if response.success:
            with self._cell.lock:
                self.arm.slider = float(request.speed_slider_fraction)
        return response
