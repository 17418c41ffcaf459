"""What hardware_node says, for who leads the arm: silence, too, is a reason not to."""

from __future__ import annotations

import time

from rclpy.node import Node
from std_msgs.msg import String

from vla_ros.errors import SensorError
from vla_ros.hardware.readiness import HardwareState
from vla_ros.nodes.runtime import LATCHED, newest_only
from vla_ros.nodes.settings import SIM, hardware_setting

_SILENT_S = 1.0


class HardwareWatch:
    """Hears `hardware/state`. The simulator has no hardware_node, and is always ready.

    Args:
        node: subscribes and logs.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._is_needed = node, hardware_setting(node) != SIM
        self._heard_s = -_SILENT_S
        self._state = HardwareState(False, "hardware_node hasn't spoken yet; is it running?", 1.0, 0)
        if self._is_needed:
            node.create_subscription(String, "hardware/state", self._take, newest_only(LATCHED))

    @property
    def reason(self) -> str:
        """Why the arm mustn't be led now, empty if it may."""
        if not self._is_needed:
            return ""
        if self._state.is_ready and time.monotonic() - self._heard_s > _SILENT_S:
            return f"hardware_node has been silent for {_SILENT_S:g} s; is it running?"
        return "" if self._state.is_ready else self._state.reason

    @property
    def speed_scaling(self) -> float:
        """Part of their speed, 0 .. 1, at which the arm carries out what it is told."""
        return self._state.speed_scaling if self._is_needed else 1.0

    def _take(self, message: String) -> None:
        try:
            self._state = HardwareState.from_json(message.data)
        except SensorError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        self._heard_s = time.monotonic()
