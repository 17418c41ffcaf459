"""Cameras and an arm for a benchmark: images of noise and joint states at a rig's rates, and nothing that computes."""

from __future__ import annotations

import sys

from vla_ros.nodes.runtime import IMAGES, RELIABLE, now_ns, required_parameter, run  # isort: skip # Before rclpy is imported.

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from vla_ros.contract import load_rig
from vla_ros.nodes import image_messages, messages
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

STATES_HZ = 250.0


class Feeder(Node):
    """Publishes what a cell at rest does."""

    def __init__(self) -> None:
        super().__init__("bench_feeder")
        robot = load_robot(required_parameter(self, "robot", "name of the robot"))
        rig = load_rig(required_parameter(self, "rig", "name of the rig"))
        self._names, self._home = robot.joint_names, RobotModel.from_config(robot).home
        self._states = self.create_publisher(JointState, "joint_states", RELIABLE)
        self._gripper = self.create_publisher(JointState, "gripper/state", RELIABLE)
        self.create_timer(1.0 / STATES_HZ, self._publish_state)
        rng = np.random.default_rng(0)
        for camera in rig.cameras.values():
            noise = rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
            image = image_messages.to_image(noise, 0, camera.mount.frame)
            self.create_timer(1.0 / camera.rate_hz, self._publisher(camera.topic, image))

    def _publisher(self, topic: str, image: Image) -> object:
        publisher = self.create_publisher(Image, topic, IMAGES)

        def publish() -> None:
            image.header.stamp = self.get_clock().now().to_msg()
            publisher.publish(image)

        return publish

    def _publish_state(self) -> None:
        stamp_ns = now_ns(self)
        self._states.publish(messages.to_joint_state(stamp_ns, self._names, self._home, np.zeros_like(self._home)))
        self._gripper.publish(messages.to_joint_state(stamp_ns, ["gripper"], np.ones(1)))


def main() -> int:
    """Publishes until it is ended."""
    return run(lambda: [Feeder()])


if __name__ == "__main__":
    sys.exit(main())
