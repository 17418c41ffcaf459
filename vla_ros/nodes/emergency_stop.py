"""An emergency stop by topic, with a heartbeat: whoever holds the button says all the time that it isn't pressed."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Bool

from vla_ros.nodes.runtime import SENSOR
from vla_ros.safety.config import EmergencyStopConfig

_LOOKS_EACH = 5


class EmergencyStop:
    """Stops when the button is pressed (true), and when it falls silent.

    Args:
        node: subscribes.
        config: topic and heartbeat.
        on_stop: called with the reason when there is one.
    """

    def __init__(self, node: Node, config: EmergencyStopConfig, on_stop: Callable[[str], None]) -> None:
        self._config, self._on_stop = config, on_stop
        self._topic = node.resolve_topic_name(config.topic)
        self._heard_s = time.monotonic()
        self._has_spoken = False
        self.reason = ""
        """Why the arm has to stand now, empty if it hasn't."""

        node.create_subscription(Bool, config.topic, self._take, SENSOR)
        node.create_timer(config.heartbeat_s / _LOOKS_EACH, self._look)

    def _take(self, message: Bool) -> None:
        self._heard_s, self._has_spoken = time.monotonic(), True
        self._set(f"{self._topic} says that the emergency stop is pressed" if message.data else "")

    def _look(self) -> None:
        silence_s = time.monotonic() - self._heard_s
        if silence_s > self._config.heartbeat_s:
            since = f"for {silence_s:.2f} s" if self._has_spoken else "yet"
            self._set(f"nothing on {self._topic} {since} (heartbeat {self._config.heartbeat_s} s)")

    def _set(self, reason: str) -> None:
        is_new = bool(reason) and not self.reason
        self.reason = reason
        if is_new:
            self._on_stop(reason)
