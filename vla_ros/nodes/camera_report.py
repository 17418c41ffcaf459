"""What camera_node says of the rig's cameras, for who leads an arm by them."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from vla_ros.nodes.driver_link import Heard
from vla_ros.nodes.runtime import RELIABLE

RATE_KEY = "{}_rate_hz"
"""Key of a camera's rate among the values of camera_node's status, by the camera's name."""

_SILENT_S = 3.0
"""camera_node speaks every second."""


class CameraReport:
    """Hears the diagnostics of camera_node in the same namespace.

    Args:
        node: subscribes.
        cameras: names of those that have to send.
    """

    def __init__(self, node: Node, cameras: Iterable[str]) -> None:
        self._names, self._heard = tuple(cameras), Heard(_SILENT_S)
        self._speaker = f"{node.get_namespace().rstrip('/')}/camera_node"
        self._problem = ""
        # Absolute, as ROS's tools expect it: every arm's camera_node is heard here.
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take, RELIABLE)

    @property
    def problem(self) -> str:
        """Why images can't be relied on, with the mend; empty if they can."""
        if self._heard.is_silent:
            return f"{self._speaker} says nothing on /diagnostics for {_SILENT_S:g} s; is it running?"
        return self._problem

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._speaker:
                self._heard.note()
                self._problem = self._read(status)

    def _read(self, status: DiagnosticStatus) -> str:
        served = {item.key for item in status.values}
        left_out = [name for name in self._names if RATE_KEY.format(name) not in served]
        if left_out:
            mend = "give it the same rig, and its parameter `cameras` all of them or none"
            return f"{self._speaker} doesn't watch {', '.join(left_out)}; {mend}"
        return "" if status.level == DiagnosticStatus.OK else str(status.message)
