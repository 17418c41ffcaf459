"""Whether the arm may be led, and whether what is said reaches it."""

from __future__ import annotations

from collections.abc import Sequence

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from vla_ros.nodes.hardware_watch import HardwareWatch
from vla_ros.nodes.runtime import parameter
from vla_ros.nodes.settings import REAL, hardware_setting

_ARMED = "armed"


class Permission:
    """hardware_node's word, and the parameter `armed` of the controller. A real arm starts in dry run.

    Args:
        node: has the parameter.
    """

    def __init__(self, node: Node) -> None:
        self._watch = HardwareWatch(node)
        meaning = "whether commands reach the arm; else dry_run/joint_command shows them. A real arm's starts false"
        self.is_armed = bool(parameter(node, _ARMED, hardware_setting(node) != REAL, meaning, is_fixed=False))
        """Whether commands are to reach the arm."""

        node.add_on_set_parameters_callback(self._on_parameters)

    @property
    def reason(self) -> str:
        """Why the arm mustn't be led now, empty if it may."""
        return self._watch.reason

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for item in parameters:
            if item.name == _ARMED:
                if item.type_ is not Parameter.Type.BOOL:
                    return SetParametersResult(successful=False, reason="armed must be true or false")
                self.is_armed = bool(item.value)
        return SetParametersResult(successful=True)
