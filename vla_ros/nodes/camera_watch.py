"""Whether the rig's cameras send at their rates, by the small messages that come with the images."""

from __future__ import annotations

import time
from collections import deque

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from vla_ros.contract import Rig
from vla_ros.nodes.runtime import SENSOR

_WINDOW_S = 2.0
# A rate is measured over two seconds; a camera that is this much slower isn't the rig's.
_SHARE = 0.7


class CameraWatch:
    """Counts camera_info messages.

    Args:
        node: subscribes.
        rig: whose cameras they are.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        self._rig = rig
        self._heard_s: dict[str, deque[float]] = {name: deque() for name in rig.cameras}
        for name, camera in rig.cameras.items():
            node.create_subscription(
                CameraInfo, camera.info_topic, lambda _message, name=name: self._note(name), SENSOR
            )

    @property
    def problem(self) -> str:
        """Which cameras are silent or slow, empty if none is."""
        now_s, problems = time.monotonic(), []
        for name, camera in self._rig.cameras.items():
            heard = self._heard_s[name]
            while heard and heard[0] < now_s - _WINDOW_S:
                heard.popleft()
            rate_hz = len(heard) / _WINDOW_S
            if not heard:
                problems.append(f"nothing on {camera.info_topic} for {_WINDOW_S:g} s; does the driver of {name} run?")
            elif rate_hz < _SHARE * camera.rate_hz:
                problems.append(f"{name} sends {rate_hz:.1f} images/s, the rig says {camera.rate_hz:g}")
        return "; ".join(problems)

    def _note(self, name: str) -> None:
        self._heard_s[name].append(time.monotonic())
