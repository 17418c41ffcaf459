"""tf_node: the arm's links in TF, from its joint states, and its description on `robot_description`.

On real hardware the driver's robot_state_publisher does both; then only the links that it lacks are published here.
"""

from __future__ import annotations

import sys

from rclpy.node import Node
from std_msgs.msg import String

from vla_ros.contract import load_rig
from vla_ros.nodes.runtime import LATCHED, SENSOR, newest_only, now_ns, parameter, run
from vla_ros.nodes.settings import live_description, robot_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.tf import TransformBroadcaster
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.types import RobotState


class TfNode(Node):
    """Publishes TF at a rate of its own: TF is for cameras and people, the motion path doesn't hang on it."""

    def __init__(self) -> None:
        super().__init__("tf_node")
        robot = robot_setting(self)
        rig = str(
            parameter(self, "rig", "", "rig whose camera mounts camera_node publishes instead of the description")
        )
        cameras = load_rig(rig, robot.prefix).cameras.values() if rig else ()
        live = live_description(self, robot)
        self._elsewhere = {camera.mount.frame for camera in cameras} | (live.published if live else frozenset())
        rate_hz = float(parameter(self, "rate_hz", 20.0, "moving transforms per second"))
        description = live.urdf if live else load_description(robot)
        self._model = RobotModel(robot, description)
        self._newest: RobotState | None = None
        self._broadcaster = TransformBroadcaster(self)
        static = [
            (pose.parent, pose.child, pose.T_parent_child)
            for pose in self._model.static_link_poses
            if pose.child not in self._elsewhere
        ]
        self._broadcaster.send(static, now_ns(self), is_static=True)
        if live is None:
            self._description = self.create_publisher(String, "robot_description", LATCHED)
            self._description.publish(String(data=description))
        StateIntake(self, robot, newest_only(SENSOR), self._keep)
        self.create_timer(1.0 / rate_hz, self._broadcast)

    def _keep(self, state: RobotState) -> None:
        self._newest = state

    def _broadcast(self) -> None:
        state, self._newest = self._newest, None
        if state is None:
            return
        opening = 0.0 if state.gripper_opening is None else state.gripper_opening
        poses = self._model.link_poses(state.positions, opening)
        edges = [(pose.parent, pose.child, pose.T_parent_child) for pose in poses if pose.child not in self._elsewhere]
        self._broadcaster.send(edges, state.stamp_ns, is_static=False)


def main() -> int:
    """Runs tf_node; looking for messages at 40 Hz spares it most of a 250 Hz stream."""
    return run(lambda: [TfNode()], poll_hz=40.0)


if __name__ == "__main__":
    sys.exit(main())
