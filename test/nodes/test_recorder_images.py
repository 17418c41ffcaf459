"""Images compressed on their way into the bag."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags.rosbag2")

import cv2
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_ros.nodes import image_messages
from vla_ros.nodes.recorder_images import ImageCompressor
from vla_ros.recording.bag_writer import Topic

IMAGE = Topic("/camera/base/image", "sensor_msgs/msg/Image")
STATES = Topic("/joint_states", "sensor_msgs/msg/JointState")


def compress(kind: str, *messages: tuple[Topic, bytes]) -> dict[str, tuple[Topic, int, bytes]]:
    found = {}
    compressor = ImageCompressor(kind, lambda topic, stamp, data: found.update({topic.name: (topic, stamp, data)}))
    for topic, data in messages:
        compressor.add(topic, 7, data)
    compressor.drain()
    compressor.close()
    return found


def picture() -> np.ndarray:
    # Smooth, as JPEG likes it, and different in every channel.
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    return np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[::-1], (48, 1)), np.full((48, 64), 80, np.uint8)], axis=2)


@pytest.mark.parametrize(("kind", "error"), [("png", 0), ("jpeg", 6)])
def test_image_is_what_it_was_on_the_topic_of_image_transport(kind, error):
    image = picture()
    message = image_messages.to_image(image, 1_500_000_000, "lens")
    other = serialize_message(JointState(name=["joint"]))
    found = compress(kind, (IMAGE, serialize_message(message)), (STATES, other))
    assert found["/joint_states"] == (STATES, 7, other)
    topic, stamp_ns, data = found["/camera/base/image/compressed"]
    assert (topic.type, stamp_ns) == ("sensor_msgs/msg/CompressedImage", 7)
    read = deserialize_message(data, CompressedImage)
    assert (read.header, read.format) == (message.header, f"rgb8; {kind} compressed bgr8")
    bgr = cv2.imdecode(np.frombuffer(bytes(read.data), np.uint8), cv2.IMREAD_COLOR)
    # PNG loses nothing; JPEG at quality 95 a few of 255 on a smooth image.
    assert np.abs(bgr[:, :, ::-1].astype(int) - image).max() <= error


def test_depth_image_stays_raw():
    data = serialize_message(Image(height=1, width=1, encoding="16UC1", step=2, data=b"\1\2"))
    assert compress("jpeg", (IMAGE, data)) == {"/camera/base/image": (IMAGE, 7, data)}
