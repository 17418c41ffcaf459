"""Measured joint states and gripper openings of a robot, as every node that needs them takes them."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from vla_ros.errors import SensorError
from vla_ros.nodes import messages
from vla_ros.nodes.runtime import SENSOR, newest_only
from vla_ros.nodes.settings import states_topic
from vla_ros.nodes.streams import Polled, Streams
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import RobotState

_CAPACITY = 1024


class StateIntake:
    """Subscribes to `joint_states`, or the driver's raw ones (`states_topic`), and `gripper/state`.

    Args:
        node: subscribes, and logs what can't be read.
        robot: whose joints are picked out, by exact name.
        profile: quality of service of `joint_states`; `newest_only` for who looks seldom.
        on_state: called with each good state besides.
        streams: serves the topics; None for the node's executor.
    """

    def __init__(
        self,
        node: Node,
        robot: RobotConfig,
        profile: QoSProfile,
        on_state: Callable[[RobotState], None] | None = None,
        streams: Streams | Polled | None = None,
    ) -> None:
        self.states = JointStateBuffer(_CAPACITY)
        self.gripper_opening: float | None = None
        """Newest measured opening, 0 closed .. 1 open, None before the first."""

        self._node, self._on_state = node, on_state
        topic = states_topic(node, robot)
        self._reader = messages.JointStateReader(robot.joint_names, topic)
        subscribe = node.create_subscription if streams is None else streams.subscribe
        subscribe(JointState, topic, self._take, profile)
        if robot.gripper is not None:
            subscribe(JointState, "gripper/state", self._take_gripper, newest_only(SENSOR))

    def _take(self, message: JointState, _info: object = None) -> None:
        try:
            state = self._reader.read(message, self.gripper_opening)
        except SensorError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        if not self.states.append(state):
            if self.states.jump_ns is None:
                reason = f"joint_states: {self.states.refusal}; dropped"
                self._node.get_logger().warning(reason, throttle_duration_sec=5.0)
                return
            jump_s = self.states.jump_ns * 1e-9
            self._node.get_logger().error(f"the stamps of joint_states jumped by {jump_s:.3f} s; starting over")
            self.states.clear()
            self.states.append(state)
        if self._on_state is not None:
            self._on_state(state)

    def _take_gripper(self, message: JointState, _info: object = None) -> None:
        if message.position:
            self.gripper_opening = float(message.position[0])
