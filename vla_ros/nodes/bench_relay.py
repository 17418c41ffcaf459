"""The least that two hops through ROS can be: a plain node that answers every chunk with a joint command."""

from __future__ import annotations

import sys

from vla_ros.nodes.runtime import RELIABLE, SENSOR, raise_priority  # isort: skip # Settles the environment before rclpy is imported.

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import MultiDOFJointTrajectory

PING, PONG = "bench/ping", "bench/pong"
_JOINTS = 7


class Relay(Node):
    """Hears a chunk, says a joint command of the same stamp: types, service and priority as in the motion path."""

    def __init__(self) -> None:
        super().__init__("bench_relay")
        self._pong = self.create_publisher(JointState, PONG, RELIABLE)
        self.create_subscription(MultiDOFJointTrajectory, PING, self._answer, SENSOR)

    def _answer(self, message: MultiDOFJointTrajectory) -> None:
        answer = JointState(name=[f"joint_{number}" for number in range(_JOINTS)])
        answer.header.stamp = message.header.stamp
        answer.position = answer.velocity = [0.0] * _JOINTS
        self._pong.publish(answer)


def main() -> int:
    """Relays until it is ended."""
    raise_priority()
    rclpy.init()
    try:
        rclpy.spin(Relay())
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
