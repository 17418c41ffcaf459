"""Hears everything that a running stack says of an episode, as any node from outside could."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from vla_ros.contract import Rig
from vla_ros.evaluation.episode_log import EpisodeRecorder
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only
from vla_ros.types import FloatArray, ImageArray

TCP = "tcp"


class StackListener(Node):
    """Collects commands, ground truth, verdicts, diagnostics, images and events.

    Args:
        name: of the node.
        rig: the cell, for the cameras' topics.
        on_frame: called with (camera, stamp ns, image) for every image.
    """

    def __init__(self, name: str, rig: Rig, on_frame: Callable[[str, int, ImageArray], None] | None = None) -> None:
        super().__init__(name)
        self.recorder: EpisodeRecorder | None = None
        """Takes what is heard while an episode runs."""
        self.counts: Counter[str] = Counter()
        """Messages heard, by topic, images by camera."""
        self.truth: dict[str, FloatArray] = {}
        """Newest T_base_object, the tcp as `tcp`."""
        self.truth_stamp_ns = 0
        self.verdict = ""
        """Newest state of the safety filter, with its reasons."""
        self.chunk_latencies_s: list[float] = []
        """From every chunk on the wire to the first command that followed it, as the safety filter tells."""
        self.opening: float | None = None
        """Newest gripper opening."""
        self.events: list[dict[str, Any]] = []
        """Decoded `episode/event`s."""
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

    def _diagnostic(self, node: str) -> dict[str, str]:
        """The newest diagnostic values of a node, by the end of its name; empty before the first."""
        return next((values for name, values in self.diagnostics.items() if name.rpartition("/")[2] == node), {})

    @staticmethod
    def objects(truth: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """What of ground truth can be handled: neither the tcp nor the cameras."""
        return {name: T for name, T in truth.items() if name != TCP and "/" not in name}

    def figure(self, node: str, key: str) -> float:
        """A number from the newest diagnostics of a node, NaN where there is none."""
        try:
            return float(self._diagnostic(node).get(key, "nan"))
        except ValueError:
            return float("nan")

    def _on_command(self, message: JointState) -> None:
        self.counts["joint_command"] += 1
        if self.recorder is not None:
            stamp_ns = messages.to_ns(message.header.stamp)
            self.recorder.add_command(stamp_ns, message.position, message.velocity)

    def _on_truth(self, message: TFMessage) -> None:
        self.counts["sim/ground_truth"] += 1
        self.truth = {edge.child_frame_id: messages.from_transform(edge.transform) for edge in message.transforms}
        self.truth_stamp_ns = messages.to_ns(message.transforms[0].header.stamp)
        if self.recorder is not None:
            positions = {name: T[:3, 3].tolist() for name, T in self.objects(self.truth).items()}
            self.recorder.add_truth(self.truth_stamp_ns, self.truth[TCP][:3, 3].tolist(), positions)

    def _on_verdict(self, message: DiagnosticArray) -> None:
        self.counts["safety/verdict"] += 1
        status = message.status[0]
        reasons = [item.value for item in status.values if item.key != "source"]
        self.verdict = f"{status.message}: {'; '.join(reasons)}" if reasons else status.message
        if self.recorder is not None:
            self.recorder.add_verdict(messages.to_ns(message.header.stamp), status.message, reasons)
            self.recorder.add_limits(item.key for item in status.values)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            self.diagnostics[status.name] = values
            self.chunk_latencies_s += [float(word) for word in values.get("chunk_to_command_s", "").split()]

    def _on_gripper(self, message: JointState) -> None:
        if message.position:
            self.opening = float(message.position[0])
            if self.recorder is not None:
                self.recorder.add_gripper(messages.to_ns(message.header.stamp), self.opening)

    def _on_event(self, message: String) -> None:
        try:
            self.events.append(json.loads(message.data))
        except json.JSONDecodeError:
            self.get_logger().warning(f"episode/event isn't JSON: {message.data!r}")

    def _image_callback(self, name: str) -> Callable[[Image], None]:
        def on_image(message: Image) -> None:
            stamp_ns = messages.to_ns(message.header.stamp)
            self.counts[name] += 1
            if self.recorder is not None:
                self.recorder.add_image(name, stamp_ns)
            if self._on_frame is not None:
                self._on_frame(name, stamp_ns, image_messages.from_image(message))

        return on_image
