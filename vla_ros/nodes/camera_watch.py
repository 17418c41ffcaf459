"""Whether the rig's cameras send at their rates, by the small messages that come with the images."""

from __future__ import annotations

import time

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from vla_ros.contract import Rig
from vla_ros.nodes.runtime import SENSOR
from vla_ros.observation.arrivals import WINDOW_S, Arrivals


class CameraWatch:
    """Counts camera_info messages. Whoever leads an arm looks by itself, and needn't trust another node to.

    Args:
        node: subscribes.
        rig: whose cameras they are.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        self._topics = {name: camera.info_topic for name, camera in rig.cameras.items()}
        self._arrivals = {name: Arrivals(camera.rate_hz) for name, camera in rig.cameras.items()}
        for name, topic in self._topics.items():
            node.create_subscription(CameraInfo, topic, lambda _message, name=name: self._note(name), SENSOR)

    @property
    def problem(self) -> str:
        """Which cameras are silent or slow, empty if none is."""
        now_s, problems = time.monotonic(), []
        for name, arrivals in self._arrivals.items():
            if arrivals.is_silent(now_s):
                text = f"nothing on {self._topics[name]} for {WINDOW_S:g} s; does the driver of {name} run?"
                problems.append(text)
            elif problem := arrivals.problem(now_s):
                problems.append(f"{name} {problem}")
        return "; ".join(problems)

    def _note(self, name: str) -> None:
        self._arrivals[name].note(time.monotonic())
