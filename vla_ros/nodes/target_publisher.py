"""The filter's targets on their topics, a message a tick, as cheap as rclpy lets it be."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.nodes import chunk_messages
from vla_ros.nodes.fixed_form import FixedForm
from vla_ros.nodes.messages import to_row
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray, JointTarget, ToolTarget


class TargetPublisher:
    """Publishes `target` and `joint_target`, where somebody listens.

    Args:
        node: publishes.
        robot: whose frames and joints they are about.
    """

    def __init__(self, node: Node, robot: RobotConfig) -> None:
        self._base, self._names = robot.base_frame, robot.joint_names
        self._tool = node.create_publisher(MultiDOFJointTrajectory, "target", RELIABLE)
        self._joint = node.create_publisher(JointTrajectory, "joint_target", RELIABLE)
        self.topics = [str(publisher.topic_name) for publisher in (self._tool, self._joint)]
        """On which nobody else may publish."""

        joints = len(robot.joint_names)
        # By how many numbers the gripper has: none, or its opening.
        self._tool_forms = [FixedForm(self._make_tool, widths) for widths in ((7, 6), (7, 6, 1))]
        self._joint_forms = [FixedForm(self._make_joint, widths) for widths in ((joints, joints), (joints, joints, 1))]

    def publish(self, target: ToolTarget | JointTarget) -> None:
        """Publishes a tick's target."""
        gripper = [] if target.gripper_opening is None else [np.array((target.gripper_opening,))]
        if isinstance(target, ToolTarget):
            # Where filter and controller are one process, often nobody listens.
            if self._tool.get_subscription_count():
                rows = (to_row(target.T_base_tcp), target.twist_tcp_in_base, *gripper)
                self._tool.publish(self._tool_forms[len(gripper)].fill(target.stamp_ns, *rows))
        elif self._joint.get_subscription_count():
            rows = (target.positions, target.velocities, *gripper)
            self._joint.publish(self._joint_forms[len(gripper)].fill(target.stamp_ns, *rows))

    def _make_tool(self, stamp_ns: int, pose: FloatArray, twist: FloatArray, *gripper: FloatArray) -> object:
        return chunk_messages.target_message(stamp_ns, self._base, pose, twist, _opening(gripper))

    def _make_joint(self, stamp_ns: int, q: FloatArray, dq: FloatArray, *gripper: FloatArray) -> object:
        return chunk_messages.to_joint_target_message(JointTarget(stamp_ns, q, dq, _opening(gripper)), self._names)


def _opening(gripper: tuple[FloatArray, ...]) -> float | None:
    return float(gripper[0][0]) if gripper else None
