"""The policies that are loaded, and what they see: one intake of states, commands and images for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from std_msgs.msg import Float64

from vla_ros.contract import Rig
from vla_ros.nodes.camera_intake import CameraIntake
from vla_ros.nodes.resident_policy import LoadedPolicy, ResidentPolicy
from vla_ros.nodes.runtime import RELIABLE, SENSOR, destroy, entities, newest_only, now_ns
from vla_ros.nodes.settings import model_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Polled
from vla_ros.robots.config import RobotConfig
from vla_ros.types import RobotState


class Residents:
    """Policies by name, and the topics that are theirs.

    Args:
        node: whose topics they are.
        robot: the arm.
        rig: the cell.
    """

    def __init__(self, node: Node, robot: RobotConfig, rig: Rig) -> None:
        self._node, self._robot, self._rig = node, robot, rig
        # Replaced and never changed: other threads go through it.
        self.by_name: Mapping[str, ResidentPolicy] = {}
        before = entities(node)
        self._model = model_setting(node, robot)
        self._streams = Polled(node)
        self._states = StateIntake(node, robot, newest_only(SENSOR), self._on_state, self._streams).states
        node.create_subscription(Float64, "gripper/command", self._on_gripper_command, RELIABLE)
        self._cameras = CameraIntake(node, rig, self._model, self._states, self._streams)
        self._built: set[Any] = entities(node) - before

    def add(self, loaded: LoadedPolicy) -> ResidentPolicy:
        """Gives a loaded policy its topics, and lets it see from now on."""
        before = entities(self._node)
        resident = ResidentPolicy(self._node, loaded, self._robot, self._model, self._states)
        observation, there = resident.contract.observation, set(self._rig.cameras)
        has_history = observation.history_steps > 1
        for spec in observation.images.values():
            self._cameras.listen({spec.camera} & there, has_history, spec.with_geometry)
        self.by_name = {**self.by_name, resident.name: resident}
        self._built |= entities(self._node) - before
        contract = f"{resident.contract.name} {resident.contract.interface_hash}"
        self._node.get_logger().info(f"{resident.name}: contract {contract} fits rig {self._rig.name}")
        return resident

    def drop(self, name: str) -> None:
        """Lets a policy go that nobody asks any more."""
        resident = self.by_name[name]
        self.by_name = {key: value for key, value in self.by_name.items() if key != name}
        resident.leave(self._node)
        self._built &= entities(self._node)

    def close(self) -> None:
        """Lets all of them go, and the topics."""
        for name in list(self.by_name):
            self.drop(name)
        self._streams.close()
        destroy(self._node, self._built)

    def poll(self) -> None:
        """Takes in what cameras and arm have sent. The executor's thread."""
        self._streams.take()

    def take_frames(self) -> None:
        """Brings what the cameras saw to the policies that look through them.

        Raises:
            SensorError: for an image that can't be read.
        """
        for camera, frame in self._cameras.take():
            for resident in self.by_name.values():
                if camera in resident.cameras:
                    resident.builder.add_frame(camera, frame)

    def _on_state(self, state: RobotState) -> None:
        for resident in self.by_name.values():
            resident.builder.add_state(state)

    def _on_gripper_command(self, message: Float64) -> None:
        for resident in self.by_name.values():
            resident.builder.add_gripper_command(now_ns(self._node), message.data)
