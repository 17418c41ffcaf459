"""The tf2_msgs that interfaces/tf2_msgs builds is, on the wire, the one of every ROS 2 distribution."""

from __future__ import annotations

import os
import sys
import time

import pytest

os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from tf2_msgs.msg import TFMessage

pytestmark = pytest.mark.ros

# Computed from the original definition by another implementation, rosbags' typesys.
TYPE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"

TOPIC = f"transforms_{os.getpid()}"


@pytest.fixture
def nodes():
    """A sender and a receiver, as two DDS participants."""
    contexts = [rclpy.Context(), rclpy.Context()]
    for context in contexts:
        rclpy.init(context=context)
    pair = [
        rclpy.create_node(name, context=context)
        for name, context in zip(("tf_sender", "tf_receiver"), contexts, strict=True)
    ]
    yield pair
    for node, context in zip(pair, contexts, strict=True):
        node.destroy_node()
        context.shutdown()


def transform(parent: str, child: str, x: float) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 345
    message.header.frame_id, message.child_frame_id = parent, child
    message.transform.translation.x, message.transform.rotation.w = x, 1.0
    return message


def spin_until(node, is_done, limit_s: float = 10.0) -> bool:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline_s = time.monotonic() + limit_s
    while not is_done() and time.monotonic() < deadline_s:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    return is_done()


def test_message_arrives_as_it_was_sent(nodes):
    sender, receiver = nodes
    sent = TFMessage(transforms=[transform("base", "tcp", 0.25), transform("tcp", "camera/wrist", -1e-9)])
    received = []
    receiver.create_subscription(TFMessage, TOPIC, received.append, 10)
    publisher = sender.create_publisher(TFMessage, TOPIC, 10)
    assert spin_until(receiver, lambda: publisher.get_subscription_count() > 0)
    publisher.publish(sent)
    assert spin_until(receiver, lambda: bool(received))
    assert received == [sent]


def test_type_hash_is_the_original_one(nodes):
    sender, receiver = nodes
    publisher = sender.create_publisher(TFMessage, TOPIC, 10)
    assert spin_until(receiver, lambda: bool(receiver.get_publishers_info_by_topic(publisher.topic_name)))
    (info,) = receiver.get_publishers_info_by_topic(publisher.topic_name)
    if not hasattr(info, "topic_type_hash"):
        pytest.skip("this distribution has no type hashes")
    assert str(info.topic_type_hash) == TYPE_HASH
