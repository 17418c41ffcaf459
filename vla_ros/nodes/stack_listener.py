"""Hears everything that a running stack says of an episode, as any node from outside could."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from vla_ros.contract import Rig
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only
from vla_ros.types import FloatArray, ImageArray


@dataclass
class Heard:
    """What was heard since the last `clear`, in order of arrival.

    Attributes:
        commands: (stamp ns, positions, velocities) of every `joint_command`.
        states: (stamp ns, positions) of the newest `joint_states` now and then.
        truth: (stamp ns, name -> T_base_object, with `tcp`) of every ground truth.
        verdicts: (stamp ns, state, reasons) of every verdict.
        openings: (stamp ns, opening) of the gripper.
        images: (stamp ns) of every image, by camera.
        events: decoded `episode/event`.
    """

    commands: list[tuple[int, FloatArray, FloatArray]] = field(default_factory=list)
    states: list[tuple[int, FloatArray]] = field(default_factory=list)
    truth: list[tuple[int, dict[str, FloatArray]]] = field(default_factory=list)
    verdicts: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    openings: list[tuple[int, float]] = field(default_factory=list)
    images: dict[str, list[int]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)


class StackListener(Node):
    """Collects commands, ground truth, verdicts, diagnostics, images and events.

    Args:
        name: of the node.
        rig: the cell, for the cameras' topics.
        on_frame: called with (camera, stamp ns, image) for every image.
    """

    def __init__(self, name: str, rig: Rig, on_frame: Callable[[str, int, ImageArray], None] | None = None) -> None:
        super().__init__(name)
        self.heard = Heard(images={name: [] for name in rig.cameras})
        self.diagnostics: dict[str, dict[str, str]] = {}
        """The newest values of every diagnostic status, by its name."""

        self._on_frame = on_frame
        self.create_subscription(JointState, "joint_command", self._on_command, 1000)
        self.create_subscription(TFMessage, "sim/ground_truth", self._on_truth, RELIABLE)
        self.create_subscription(DiagnosticArray, "safety/verdict", self._on_verdict, RELIABLE)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self.create_subscription(JointState, "gripper/state", self._on_gripper, newest_only(SENSOR))
        self.create_subscription(String, "episode/event", self._on_event, RELIABLE)
        for camera_name, camera in rig.cameras.items():
            self.create_subscription(Image, camera.topic, self._image_callback(camera_name), SENSOR)

    def forget(self) -> None:
        """Starts collecting anew; diagnostics stay."""
        self.heard = Heard(images={name: [] for name in self.heard.images})

    def _diagnostic(self, node: str) -> dict[str, str]:
        """The newest diagnostic values of a node, by the end of its name; empty before the first."""
        return next((values for name, values in self.diagnostics.items() if name.rpartition("/")[2] == node), {})

    def figure(self, node: str, key: str) -> float:
        """A number from the newest diagnostics of a node, NaN where there is none."""
        try:
            return float(self._diagnostic(node).get(key, "nan"))
        except ValueError:
            return float("nan")

    def _on_command(self, message: JointState) -> None:
        stamp_ns = messages.to_ns(message.header.stamp)
        self.heard.commands.append((stamp_ns, np.asarray(message.position), np.asarray(message.velocity)))

    def _on_truth(self, message: TFMessage) -> None:
        poses = {edge.child_frame_id: messages.from_transform(edge.transform) for edge in message.transforms}
        self.heard.truth.append((messages.to_ns(message.transforms[0].header.stamp), poses))

    def _on_verdict(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        reasons = {item.key: item.value for item in status.values}
        self.heard.verdicts.append((messages.to_ns(message.header.stamp), status.message, reasons))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {item.key: item.value for item in status.values}

    def _on_gripper(self, message: JointState) -> None:
        if message.position:
            self.heard.openings.append((messages.to_ns(message.header.stamp), float(message.position[0])))

    def _on_event(self, message: String) -> None:
        try:
            self.heard.events.append(json.loads(message.data))
        except json.JSONDecodeError:
            self.get_logger().warning(f"episode/event isn't JSON: {message.data!r}")

    def _image_callback(self, name: str) -> Callable[[Image], None]:
        def on_image(message: Image) -> None:
            stamp_ns = messages.to_ns(message.header.stamp)
            self.heard.images[name].append(stamp_ns)
            if self._on_frame is not None:
                self._on_frame(name, stamp_ns, image_messages.from_image(message))

        return on_image
