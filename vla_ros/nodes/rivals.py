"""Notices a second publisher where only one may be: two commanders of one arm is nobody in command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from rclpy.node import Node, NodeNameNonExistentError

_PERIOD_S = 0.5


def who_commands(node: Node) -> str:
    """The nodes that publish joint commands where this one is, for a person; empty for nobody."""
    return ", ".join(sorted({info.node_name for info in node.get_publishers_info_by_topic("joint_command")}))


def count_servers(node: Node, service: str) -> int:
    """How many nodes offer a service, as far as this one has heard of them. (Humble's nodes have no `count_services`.)

    Args:
        node: asks the ROS graph.
        service: resolved name.
    """
    count = 0
    for name, namespace in node.get_node_names_and_namespaces():
        # One that ended since it was listed offers nothing.
        with contextlib.suppress(NodeNameNonExistentError):
            offered = node.get_service_names_and_types_by_node(name, namespace)
            count += any(offer == service for offer, _ in offered)
    return count


class RivalWatch:
    """Looks twice a second who publishes on some topics.

    Args:
        node: asks the ROS graph and logs.
        topics: gives the resolved topic names that must have one publisher at most.
        on_rivals: called with who they are when they appear.
    """

    def __init__(self, node: Node, topics: Callable[[], Iterable[str]], on_rivals: Callable[[str], None]) -> None:
        self.rivals = ""
        """Topics with more than one publisher and their nodes, for a person; empty while all is well."""

        self._node, self._topics, self._on_rivals = node, topics, on_rivals
        node.create_timer(_PERIOD_S, self._look)

    def _look(self) -> None:
        crowded = []
        for topic in self._topics():
            publishers = self._node.get_publishers_info_by_topic(topic)
            if len(publishers) > 1:
                crowded.append(f"{topic} by {', '.join(sorted(info.node_name for info in publishers))}")
        rivals = "; ".join(crowded)
        if rivals and rivals != self.rivals:
            self._node.get_logger().error(f"two publishers: {rivals}; the arm holds until one of them is gone")
            self._on_rivals(rivals)
        self.rivals = rivals
