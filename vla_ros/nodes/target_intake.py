"""Targets by topic, for a controller that runs in a process of its own: the newest, by its stamp."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.errors import ChunkError
from vla_ros.nodes import chunk_messages
from vla_ros.nodes.runtime import SENSOR, newest_only
from vla_ros.nodes.streams import Streams
from vla_ros.robots.config import RobotConfig
from vla_ros.types import JointTarget, ToolTarget


class TargetIntake:
    """Subscribes to `target` and `joint_target`.

    Args:
        node: logs what can't be read.
        robot: whose joints and frames they are about.
        streams: serves the topics.
        timeout_s: age of a target at which it counts no more.
    """

    def __init__(self, node: Node, robot: RobotConfig, streams: Streams, timeout_s: float) -> None:
        self._node, self._timeout_s = node, timeout_s
        self._newest: ToolTarget | JointTarget | None = None
        read_tool = functools.partial(chunk_messages.from_target_message, base_frame=robot.base_frame)
        read_joint = functools.partial(chunk_messages.from_joint_target_message, joint_names=robot.joint_names)
        profile = newest_only(SENSOR)
        streams.subscribe(MultiDOFJointTrajectory, "target", functools.partial(self._take, read_tool), profile)
        streams.subscribe(JointTrajectory, "joint_target", functools.partial(self._take, read_joint), profile)

    def at(self, stamp_ns: int) -> ToolTarget | JointTarget | None:
        """The target in force at a time, None if the newest is too old."""
        target = self._newest
        return None if target is None or stamp_ns - target.stamp_ns > self._timeout_s * 1e9 else target

    def clear(self) -> None:
        """Forgets what has come."""
        self._newest = None

    def _take(self, read: Callable[[Any], ToolTarget | JointTarget], message: Any, _info: object) -> None:
        try:
            target = read(message)
        except ChunkError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=2.0)
            return
        if self._newest is None or target.stamp_ns > self._newest.stamp_ns:
            self._newest = target
