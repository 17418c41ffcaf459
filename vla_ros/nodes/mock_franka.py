"""franka_ros2 in front of the simulated arm: state, error recovery, parameters of the robot, and its hand.

Source: franka_ros2 (jazzy), franka_hardware/src, franka_robot_state_broadcaster/src.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from franka_msgs.action import ErrorRecovery
from franka_msgs.msg import Errors, FrankaRobotState
from franka_msgs.srv import SetFullCollisionBehavior, SetJointStiffness, SetLoad
from geometry_msgs.msg import WrenchStamped
from rclpy.node import Node
from std_srvs.srv import Trigger

from vla_ros.hardware.franka_arm import FrankaArm, RejectedError
from vla_ros.nodes import messages
from vla_ros.nodes.deferred_action import conclude, serve_action
from vla_ros.nodes.mock_fingers import MockFingers
from vla_ros.nodes.mock_grippers import FrankaHand
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only
from vla_ros.nodes.sim_cell import SimCell
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray, RobotState

_BROADCASTER = "franka_robot_state_broadcaster"


class MockFranka:
    """The robot's side, and what its driver says and serves.

    Args:
        node: publishes and serves.
        robot: the arm.
        cell: it stands in.
        fingers: of its hand.
    """

    def __init__(self, node: Node, robot: RobotConfig, cell: SimCell, fingers: MockFingers) -> None:
        self._node, self._robot, self._cell = node, robot, cell
        self.arm = FrankaArm(robot)
        self._reported: object = None
        self._states = node.create_publisher(FrankaRobotState, f"{_BROADCASTER}/robot_state", RELIABLE)
        wrenches = f"{_BROADCASTER}/external_wrench_in_base_frame"
        self._wrenches = node.create_publisher(WrenchStamped, wrenches, newest_only(SENSOR))
        self._message = self._make_message()
        serve_action(node, ErrorRecovery, "action_server/error_recovery", self._recover)
        for kind, name, serve in (
            (SetLoad, "set_load", self._set_load),
            (SetFullCollisionBehavior, "set_full_collision_behavior", self._set_collision_behavior),
            (SetJointStiffness, "set_joint_stiffness", self._set_stiffness),
        ):
            node.create_service(kind, f"service_server/{name}", self._guarded(serve))
        node.create_service(Trigger, "mock/reflex", self._collide)
        if robot.driver and robot.driver.gripper and robot.gripper:
            FrankaHand(node, robot.driver.gripper, robot.gripper, fingers)

    def feel(self, state: RobotState) -> None:
        """A physics step, with the cell's lock held."""
        self.arm.feel(state.positions, state.velocities, self._cell.world.outside_torques())

    def publish(self, state: RobotState, wrench: FloatArray, stamp_ns: int) -> None:
        """State and wrench, now and then."""
        message = self._message
        header = messages.header(stamp_ns, self._robot.base_frame)
        message.header = message.measured_joint_state.header = message.o_f_ext_hat_k.header = header
        message.measured_joint_state.position = state.positions.tolist()
        message.measured_joint_state.velocity = state.velocities.tolist()
        force, torque = message.o_f_ext_hat_k.wrench.force, message.o_f_ext_hat_k.wrench.torque
        force.x, force.y, force.z, torque.x, torque.y, torque.z = wrench.tolist()
        message.time = stamp_ns * 1e-9
        reflex = self.arm.reflex
        message.robot_mode = int(self.arm.mode)
        message.current_errors = _to_errors(reflex.errors if reflex else ())
        message.last_motion_errors = _to_errors(self.arm.last_errors)
        self._states.publish(message)
        self._wrenches.publish(message.o_f_ext_hat_k)
        if reflex is not None and reflex is not self._reported:
            self._node.get_logger().error(f"motion aborted by reflex! [{reflex}]")
        self._reported = reflex

    def reset(self) -> None:
        """The arm is at home again, with the cell's lock held."""
        self.arm.recover()

    def describe(self) -> dict[str, object]:
        """For /diagnostics."""
        return {"mode": self.arm.mode.name, "reflex": self.arm.reflex or "none"}

    def _make_message(self) -> FrankaRobotState:
        message = FrankaRobotState(control_command_success_rate=1.0)
        names, zeros = list(self._robot.joint_names), [0.0] * len(self._robot.joints)
        message.measured_joint_state.name, message.measured_joint_state.effort = names, zeros
        return message

    def _recover(self, handle: Any) -> None:
        with self._cell.lock:
            self.arm.recover()
        conclude(handle, "succeed", ErrorRecovery.Result())

    def _collide(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._cell.lock:
            response.success, response.message = True, self.arm.collide()
        return response

    def _guarded(self, serve: Callable[[Any], None]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                with self._cell.lock:
                    serve(request)
                response.success = True
            except RejectedError as error:
                response.success, response.error = False, str(error)
            return response

        return answer

    def _set_load(self, request: SetLoad.Request) -> None:
        inertia = np.array(request.load_inertia).reshape(3, 3)
        self.arm.check_settable("Set Load", request.mass >= 0.0 and bool((np.diag(inertia) >= 0.0).all()))

    def _set_collision_behavior(self, request: SetFullCollisionBehavior.Request) -> None:
        self.arm.set_thresholds(np.array(request.upper_torque_thresholds_nominal))

    def _set_stiffness(self, request: SetJointStiffness.Request) -> None:
        self.arm.check_settable("Set Joint Impedance", bool((np.array(request.joint_stiffness) > 0.0).all()))


def _to_errors(names: tuple[str, ...]) -> Errors:
    return Errors(**dict.fromkeys(names, True))
