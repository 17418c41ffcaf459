"""The mocked controller manager and its controllers' command topics."""

from __future__ import annotations

import threading
from typing import Any

from controller_manager_msgs.msg import ControllerState
from controller_manager_msgs.srv import ListControllers, SwitchController
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_ros.errors import ConfigError
from vla_ros.hardware.controllers import Controller, SwitchError
from vla_ros.hardware.driver_loop import DriverLoop
from vla_ros.nodes.command_messages import from_trajectory_message
from vla_ros.nodes.messages import to_ns, to_time
from vla_ros.nodes.runtime import RELIABLE, newest_only
from vla_ros.nodes.sim_arm import JUMP_RAD, LATE_TRAJECTORY
from vla_ros.nodes.sim_cell import SimCell
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.trajectory import DesiredState


class MockControllers:
    """Hears commands in the executor's thread and hands the newest to the driver's loop in the simulation's.

    Args:
        node: subscribes and serves.
        robot: the arm.
        manager: name of the controller manager's node.
        loop: the driver's.
        cell: whose lock is held while controllers are switched.
    """

    def __init__(self, node: Node, robot: RobotConfig, manager: str, loop: DriverLoop, cell: SimCell) -> None:
        self._node, self._robot, self._loop, self._cell = node, robot, loop, cell
        self._controllers = loop.arm.controllers
        self._lock = threading.Lock()
        self._newest: dict[str, Any] = {}
        node.create_service(ListControllers, f"{manager}/list_controllers", self._list)
        node.create_service(SwitchController, f"{manager}/switch_controller", self._switch)
        for controller in self._controllers.controllers.values():
            if controller.follows:
                self._subscribe(controller)

    def apply(self, now_ns: int) -> None:
        """Hands over what has come, at a ROS time, with the cell's lock held."""
        with self._lock:
            newest, self._newest = self._newest, {}
        self._loop.settle(self._cell.world.robot_state(now_ns).positions)
        for name, message in newest.items():
            motion = self._loop.motion_of(name)
            if motion is None:
                text = f"a command for {name}, which isn't active: it is left out"
                self._node.get_logger().warning(text, throttle_duration_sec=5.0)
                continue
            try:
                if motion.follows == "trajectory":
                    self._report(motion.take_trajectory(*self._read(message, now_ns)))
                else:
                    motion.take(message.data)
            except ConfigError as error:
                self._node.get_logger().error(f"{name}: {error}", throttle_duration_sec=2.0)
                if motion.follows != "trajectory" and len(message.data) != len(self._robot.joints):
                    self._controllers.switch([], [name], is_strict=False)

    def clear(self) -> None:
        """Forgets what has come."""
        with self._lock:
            self._newest.clear()

    def _subscribe(self, controller: Controller) -> None:
        def hear(message: Any) -> None:
            with self._lock:
                self._newest[controller.name] = message

        kind = JointTrajectory if controller.follows == "trajectory" else Float64MultiArray
        # Reliable, as the real ones are: a trajectory that is sent once arrives, and best-effort senders aren't heard.
        self._node.create_subscription(kind, controller.topic, hear, newest_only(RELIABLE))

    def _report(self, jump_rad: float) -> None:
        if jump_rad > JUMP_RAD:
            self._node.get_logger().error(LATE_TRAJECTORY.format(jump_rad))

    def _read(self, message: JointTrajectory, now_ns: int) -> tuple[list[float], DesiredState]:
        """Times of the points from now on, s, and the points. A stamp of 0 means now, as in ROS's controller."""
        if to_ns(message.header.stamp) == 0:
            message.header.stamp = to_time(now_ns)
        times_ns, positions, velocities, accelerations = from_trajectory_message(message, self._robot.joint_names)
        return [(time_ns - now_ns) * 1e-9 for time_ns in times_ns], DesiredState(positions, velocities, accelerations)

    def _list(self, _request: ListControllers.Request, response: ListControllers.Response) -> ListControllers.Response:
        with self._cell.lock:
            response.controller = [self._describe(item) for item in self._controllers.controllers.values()]
        return response

    def _describe(self, controller: Controller) -> ControllerState:
        is_active = self._controllers.is_active(controller.name)
        joints = self._robot.joint_names if controller.follows else ()
        interfaces = [f"{joint}/{controller.interface}" for joint in joints]
        return ControllerState(
            name=controller.name,
            type=controller.type,
            state="active" if is_active else "inactive",
            claimed_interfaces=interfaces if is_active else [],
            required_command_interfaces=interfaces,
        )

    def _switch(
        self, request: SwitchController.Request, response: SwitchController.Response
    ) -> SwitchController.Response:
        """Everything but STRICT is BEST_EFFORT, as in Kilted."""
        is_strict = request.strictness == SwitchController.Request.STRICT
        try:
            with self._cell.lock:
                self._controllers.switch(request.activate_controllers, request.deactivate_controllers, is_strict)
        except SwitchError as error:
            self._node.get_logger().error(str(error))
            response.ok = False
            text = str(error)
        else:
            response.ok, text = True, "Successfully switched controllers!"
        if hasattr(response, "message"):  # Humble's has none.
            response.message = text
        return response
