"""The one place that touches TF: broadcaster, listener, and a small buffer of our own for machines without tf2_ros."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from vla_ros.nodes import messages
from vla_ros.nodes.runtime import LATCHED, RELIABLE
from vla_ros.observation.transforms import TransformBuffer as TransformBuffer
from vla_ros.observation.transforms import TransformError as TransformError
from vla_ros.types import FloatArray

_STATIC = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
)


class TransformListener:
    """Fills a buffer from /tf and /tf_static.

    Args:
        node: subscribes.
        buffer: is filled; by the executor's thread, so ask it from there too.
        with_moving: whether to take /tf as well as /tf_static.
    """

    def __init__(self, node: Node, buffer: TransformBuffer, with_moving: bool = True) -> None:
        self._buffer = buffer
        node.create_subscription(TFMessage, "/tf_static", lambda message: self._take(message, True), _STATIC)
        if with_moving:
            node.create_subscription(TFMessage, "/tf", lambda message: self._take(message, False), RELIABLE)

    def _take(self, message: TFMessage, is_static: bool) -> None:
        for edge in message.transforms:
            try:
                T = messages.from_transform(edge.transform)
            except ValueError:
                continue
            stamp_ns = messages.to_ns(edge.header.stamp)
            self._buffer.set_transform(edge.header.frame_id, edge.child_frame_id, T, stamp_ns, is_static)


class TransformBroadcaster:
    """Publishes edges on /tf_static (once, latched) and /tf.

    Args:
        node: publishes.
    """

    def __init__(self, node: Node) -> None:
        self._static = node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._moving = node.create_publisher(TFMessage, "/tf", RELIABLE)

    def send(self, edges: Sequence[tuple[str, str, FloatArray]], stamp_ns: int, is_static: bool) -> None:
        """Publishes (parent, child, T_parent_child) edges in one message."""
        message = TFMessage(
            transforms=[messages.to_transform_stamped(T, parent, child, stamp_ns) for parent, child, T in edges]
        )
        (self._static if is_static else self._moving).publish(message)
