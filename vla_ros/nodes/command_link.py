"""The wire between the controller and an arm: what a sender gives, on the topics and in the form of the interface."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_ros.control.sending import Content, JointPoints, Sending
from vla_ros.nodes import command_messages, messages
from vla_ros.nodes.fixed_form import FixedForm
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.robots.config import CommandConfig, RobotConfig
from vla_ros.types import FloatArray

_OPENING_STEP = 0.005


class CommandLink:
    """Publishes commands: to the arm first, then to whoever watches, and to the gripper what changes.

    Args:
        node: publishes.
        robot: whose joints and frames they are about.
        config: interface and topic.
    """

    def __init__(self, node: Node, robot: RobotConfig, config: CommandConfig) -> None:
        kinds = {"trajectory": JointTrajectory, "cartesian": PoseStamped, "twist": TwistStamped}
        kind = kinds.get(config.interface, Float64MultiArray)
        forms: dict[str, Callable[[Content, int], None]] = {
            "trajectory": self._publish_points,
            "cartesian": self._publish_pose,
            "twist": self._publish_twist,
        }
        self._publish_content = forms.get(config.interface, self._publish_numbers)
        self._robot = robot
        joints = len(robot.joint_names)
        self._command_form = FixedForm(self._make_joint_command, (joints, joints))
        self._numbers_form = FixedForm(lambda _stamp_ns, numbers: Float64MultiArray(data=numbers.tolist()), (joints,))
        self._arm = node.create_publisher(kind, config.topic, RELIABLE)
        self._joint_command = node.create_publisher(JointState, "joint_command", RELIABLE)
        self._gripper = None if robot.gripper is None else node.create_publisher(Float64, "gripper/command", RELIABLE)
        self._sent_opening: float | None = None
        self._shown = node.create_publisher(JointState, "dry_run/joint_command", RELIABLE)
        self.is_armed = True
        """Whether commands reach the arm; else they are shown on `dry_run/joint_command` alone."""

        self.topics = [str(publisher.topic_name) for publisher in (self._arm, self._joint_command)]
        """On which nobody else may publish."""

    def begin(self) -> None:
        """Forgets what the gripper was told last."""
        self._sent_opening = None

    def publish(self, sending: Sending, stamp_ns: int) -> None:
        """Sends what leaves in the tick of a stamp."""
        if not self.is_armed:
            for tick_ns, command in sending.ticks:
                self._shown.publish(self._command_form.fill(tick_ns, command.positions, command.velocities))
            return
        self._publish_content(sending.content, stamp_ns)
        for tick_ns, command in sending.ticks:
            self._joint_command.publish(self._command_form.fill(tick_ns, command.positions, command.velocities))
        opening = sending.ticks[-1][1].gripper_opening if sending.ticks else None
        if self._gripper is None or opening is None:
            return
        if self._sent_opening is None or abs(opening - self._sent_opening) > _OPENING_STEP:
            self._gripper.publish(Float64(data=opening))
            self._sent_opening = opening

    def _publish_numbers(self, content: Content, _stamp_ns: int) -> None:
        if content is not None and not isinstance(content, JointPoints):
            self._arm.publish(self._numbers_form.fill(0, content))

    def _make_joint_command(self, stamp_ns: int, positions: FloatArray, velocities: FloatArray) -> JointState:
        return messages.to_joint_state(stamp_ns, self._robot.joint_names, positions, velocities)

    def _publish_points(self, content: Content, _stamp_ns: int) -> None:
        if isinstance(content, JointPoints):
            self._arm.publish(command_messages.to_trajectory_message(content, self._robot.joint_names))

    def _publish_pose(self, content: Content, stamp_ns: int) -> None:
        if content is not None and not isinstance(content, JointPoints):
            self._arm.publish(command_messages.to_pose_message(content, self._robot.base_frame, stamp_ns))

    def _publish_twist(self, content: Content, stamp_ns: int) -> None:
        if content is not None and not isinstance(content, JointPoints):
            self._arm.publish(command_messages.to_twist_message(content, self._robot.base_frame, stamp_ns))
