"""The simulated arm's own controller as ROS sees it: commands by topic, in the form of the robot's interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_ros.errors import VlaRosError
from vla_ros.nodes.command_messages import from_pose_message, from_trajectory_message, from_twist_message
from vla_ros.nodes.runtime import SENSOR, newest_only
from vla_ros.robots.config import CommandConfig, RobotConfig
from vla_ros.sim.tool_servo import TWIST_TIMEOUT_S
from vla_ros.sim.trajectory import DesiredState
from vla_ros.sim.world import World

# What rounding of times in ns may make is a thousand times less.
JUMP_RAD = 1e-6
LATE_TRAJECTORY = (
    "a joint trajectory came too late: the desired position jumps by {:.2g} rad; is the machine overloaded? "
    "trajectory_lead_s in the robot's YAML gives more time"
)


class SimArm:
    """Hears commands in the executor's thread and hands the newest to the world in the simulation's.

    Args:
        node: subscribes, and logs what is refused.
        robot: the arm.
        config: interface and topic.
        world: the simulation.
    """

    def __init__(self, node: Node, robot: RobotConfig, config: CommandConfig, world: World) -> None:
        self._node, self._robot, self._config, self._world = node, robot, config, world
        self._lock = threading.Lock()
        self._newest: Any = None
        forms: dict[str, tuple[type, Callable[[Any, int], None]]] = {
            "position": (Float64MultiArray, self._take_positions),
            "velocity": (Float64MultiArray, self._take_velocities),
            "trajectory": (JointTrajectory, self._take_trajectory),
            "cartesian": (PoseStamped, self._take_pose),
            "twist": (TwistStamped, self._take_twist),
        }
        kind, self._take = forms[config.interface]
        node.create_subscription(kind, config.topic, self._on_command, newest_only(SENSOR))

    def apply(self, stamp_ns: int, duration_ns: int) -> None:
        """Hands over what has come, before the tick that ends at a stamp, ns of ROS time, and lasts so long."""
        with self._lock:
            message, self._newest = self._newest, None
        if message is None:
            return
        try:
            self._take(message, stamp_ns - duration_ns)
        except VlaRosError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=2.0)

    def clear(self) -> None:
        """Forgets what has come."""
        with self._lock:
            self._newest = None

    def _on_command(self, message: Any) -> None:
        with self._lock:
            self._newest = message

    def _take_positions(self, message: Float64MultiArray, _now_ns: int) -> None:
        self._world.set_joint_command(np.array(message.data))

    def _take_velocities(self, message: Float64MultiArray, _now_ns: int) -> None:
        self._world.set_joint_velocities(np.array(message.data), self._config.velocity_watchdog_s)

    def _take_trajectory(self, message: JointTrajectory, now_ns: int) -> None:
        times_ns, positions, velocities, accelerations = from_trajectory_message(message, self._robot.joint_names)
        now_s = self._world.time_s
        times_s = [now_s + (time_ns - now_ns) * 1e-9 for time_ns in times_ns]
        jump_rad = self._world.set_joint_trajectory(times_s, DesiredState(positions, velocities, accelerations))
        if jump_rad > JUMP_RAD:
            self._node.get_logger().error(LATE_TRAJECTORY.format(jump_rad))

    def _take_pose(self, message: PoseStamped, _now_ns: int) -> None:
        self._world.set_tool_command(from_pose_message(message, self._robot.base_frame))

    def _take_twist(self, message: TwistStamped, _now_ns: int) -> None:
        self._world.set_tool_twist(from_twist_message(message, self._robot.base_frame), TWIST_TIMEOUT_S)
