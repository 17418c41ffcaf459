"""Gripper drivers in front of the simulated fingers: a franka_gripper node, and an action as Robotiq's controller has.

Source: franka_ros2 (jazzy), franka_gripper/src/gripper_action_server.cpp and config/franka_gripper_node.yaml;
ros2_controllers (kilted), parallel_gripper_controller; ros2_robotiq_gripper, config/robotiq_controllers.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from control_msgs.action import GripperCommand
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from vla_ros.hardware.fingers import Way
from vla_ros.nodes import messages
from vla_ros.nodes.deferred_action import serve_action
from vla_ros.nodes.mock_fingers import Goal, MockFingers, end_goal
from vla_ros.nodes.runtime import RELIABLE, now_ns
from vla_ros.robots.config import GripperConfig
from vla_ros.robots.driver import GripperDriver

_STATES_HZ = 15.0
_DEFAULT_SPEED_M_S, _DEFAULT_EPSILON_M = 0.1, 0.005
# As near as this the fingers needn't move.
_SAME_WIDTH_M = 1e-4


class FrankaHand:
    """The node franka_gripper.

    Args:
        node: serves, and publishes the fingers' joints.
        driver: names.
        gripper: width and joints.
        fingers: in the simulation.
    """

    def __init__(self, node: Node, driver: GripperDriver, gripper: GripperConfig, fingers: MockFingers) -> None:
        from franka_msgs.action import Grasp, Homing, Move

        self._node, self._gripper, self._fingers = node, gripper, fingers
        self._grasp = Grasp
        for kind, name, begin in (
            (Move, "move", lambda handle: self._begin_move(handle, Move)),
            (Grasp, "grasp", self._begin_grasp),
            (Homing, "homing", lambda handle: self._begin_homing(handle, Homing)),
            (GripperCommand, "gripper_action", self._begin_command),
        ):
            serve_action(node, kind, f"{driver.name}/{name}", begin)
        node.create_service(Trigger, f"{driver.name}/stop", self._stop)
        self._states = node.create_publisher(JointState, driver.states, RELIABLE)
        node.create_timer(1.0 / _STATES_HZ, self._publish)

    @property
    def _width_m(self) -> float:
        return self._fingers.opening * self._gripper.max_width_m

    def _publish(self) -> None:
        message = JointState(header=messages.header(now_ns(self._node)), name=list(self._gripper.joints))
        message.position = list(self._gripper.positions(self._fingers.opening))
        message.velocity = message.effort = [0.0] * len(message.name)
        self._states.publish(message)

    def _stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._fingers.halt()
        response.success = True
        return response

    def _send(
        self, handle: Any, kind: Any, width_m: float, speed_m_s: float, is_success: Callable[[Way, float], bool]
    ) -> None:
        """Starts a way of which the kind's result says success and error."""

        def end(way: Way | None, _opening: float) -> None:
            is_done = way is not None and is_success(way, self._width_m)
            error = "" if way is not None else "libfranka gripper: Command aborted!"
            end_goal(handle, is_done, kind.Result(success=is_done, error=error))

        if not (0.0 <= width_m <= self._gripper.max_width_m and speed_m_s > 0.0):
            end_goal(handle, False, kind.Result(success=False, error="libfranka gripper: Command failed!"))
            return
        self._start(handle, width_m, speed_m_s, end, lambda: kind.Feedback(current_width=self._width_m))

    def _start(
        self,
        handle: Any,
        width_m: float,
        speed_m_s: float,
        end: Callable[[Way | None, float], None],
        make_feedback: Callable[[], Any],
    ) -> None:
        width, fastest = self._gripper.max_width_m, self._gripper.speed_per_s
        motion = self._fingers.motion_to(width_m / width, min(speed_m_s / width, fastest))
        self._fingers.send(Goal(handle, motion, end, lambda _opening: handle.publish_feedback(make_feedback())))

    def _begin_move(self, handle: Any, kind: Any) -> None:
        goal = handle.request
        self._send(handle, kind, goal.width, goal.speed, lambda way, _width_m: way is Way.REACHED)

    def _begin_homing(self, handle: Any, kind: Any) -> None:
        width_m = self._gripper.max_width_m
        self._send(handle, kind, width_m, _DEFAULT_SPEED_M_S, lambda way, _width_m: way is Way.REACHED)

    def _begin_grasp(self, handle: Any) -> None:
        """Closes on; what is then between the fingers has to be as wide as said."""
        goal = handle.request
        inner_m, outer_m = goal.epsilon.inner, goal.epsilon.outer
        is_width = 0.0 <= goal.width <= self._gripper.max_width_m
        self._send(
            handle,
            self._grasp,
            max(goal.width - inner_m, 0.0) if is_width else goal.width,
            goal.speed,
            lambda way, width_m: self._is_grasped(way, width_m, goal.width, inner_m, outer_m),
        )

    @staticmethod
    def _is_grasped(way: Way, width_m: float, wanted_m: float, inner_m: float, outer_m: float) -> bool:
        """Source: libfranka, include/franka/gripper.h (grasp)."""
        is_held = way is Way.STALLED or wanted_m - inner_m <= 0.0
        return is_held and wanted_m - inner_m < width_m < wanted_m + outer_m

    def _begin_command(self, handle: Any) -> None:
        """Position is of one finger, half the width."""
        wanted_m, force_n = 2.0 * handle.request.command.position, handle.request.command.max_effort
        width_m = self._width_m
        if not 0.0 <= wanted_m <= self._gripper.max_width_m:
            end_goal(handle, False, GripperCommand.Result())
            return
        if abs(wanted_m - width_m) < _SAME_WIDTH_M:
            end_goal(handle, True, GripperCommand.Result(position=width_m, reached_goal=True))
            return
        inner_m = outer_m = _DEFAULT_EPSILON_M

        def end(way: Way | None, _opening: float) -> None:
            if wanted_m >= width_m:
                is_done = way is Way.REACHED
            else:
                is_done = way is not None and self._is_grasped(way, self._width_m, wanted_m, inner_m, outer_m)
            end_goal(handle, is_done, GripperCommand.Result(position=self._width_m, reached_goal=is_done))

        target_m = wanted_m if wanted_m >= width_m else max(wanted_m - inner_m, 0.0)
        if wanted_m < width_m and force_n < 0.0:
            end_goal(handle, False, GripperCommand.Result(position=width_m))
            return
        self._start(handle, target_m, _DEFAULT_SPEED_M_S, end, lambda: GripperCommand.Feedback(position=self._width_m))


class KnuckleGripper:
    """A controller with one action on a joint, as Robotiq's, and as the mover of any other gripper's joint.

    Args:
        node: serves.
        driver: kind, names and range of the joint.
        gripper: speed.
        fingers: in the simulation.
    """

    def __init__(self, node: Node, driver: GripperDriver, gripper: GripperConfig, fingers: MockFingers) -> None:
        self._driver, self._speed, self._fingers = driver, gripper.speed_per_s, fingers
        if driver.kind == "parallel_gripper_command":
            # Humble has no such action.
            from control_msgs.action import ParallelGripperCommand

            self._parallel = ParallelGripperCommand
            serve_action(node, ParallelGripperCommand, driver.name, self._begin_parallel)
        else:
            serve_action(node, GripperCommand, driver.name, self._begin)

    def _begin(self, handle: Any) -> None:
        def describe(position: float, is_reached: bool) -> Any:
            return GripperCommand.Result(position=position, reached_goal=is_reached, stalled=not is_reached)

        self._send(handle, handle.request.command.position, describe)

    def _begin_parallel(self, handle: Any) -> None:
        command = handle.request.command

        def describe(position: float, is_reached: bool) -> Any:
            state = JointState(name=[self._driver.joint], position=[position], effort=[0.0])
            return self._parallel.Result(state=state, reached_goal=is_reached, stalled=not is_reached)

        if len(command.position) != 1:
            end_goal(handle, False, describe(self._driver.position(self._fingers.opening), False))
            return
        self._send(handle, command.position[0], describe)

    def _send(self, handle: Any, position: float, describe: Callable[[float, bool], Any]) -> None:
        """A stall is a success too (`allow_stalling`), and so a position out of reach ends where the fingers do."""

        def end(way: Way | None, opening: float) -> None:
            is_reached = way is Way.REACHED and self._is_in_range(position)
            end_goal(handle, way is not None, describe(self._driver.position(opening), is_reached))

        motion = self._fingers.motion_to(self._driver.opening(position), self._speed)
        self._fingers.send(Goal(handle, motion, end, lambda _opening: None))

    def _is_in_range(self, position: float) -> bool:
        least, most = sorted((self._driver.closed, self._driver.open))
        return bool(least - 0.02 <= position <= most + 0.02)


class PositionGripper:
    """A forward controller of the gripper's joint: the last command counts, and nobody answers."""

    def __init__(self, node: Node, driver: GripperDriver, set_opening: Callable[[float], None]) -> None:
        self._driver, self._set = driver, set_opening
        node.create_subscription(Float64MultiArray, driver.name, self._take, RELIABLE)

    def _take(self, message: Float64MultiArray) -> None:
        if len(message.data) == 1:
            self._set(self._driver.opening(message.data[0]))
