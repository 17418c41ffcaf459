"""Chunks read straight from their bytes: the same as rclpy reads, or left to it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Transform, Twist
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from vla_ros.actions.chunk_bytes import read_chunk_bytes
from vla_ros.errors import ChunkError
from vla_ros.nodes import chunk_messages
from vla_ros.types import ToolChunk

pytestmark = pytest.mark.ros

ABSOLUTE_NAMES = st.sampled_from([["tcp"], ["tcp", "gripper"], ["tcp", "gripper", "anchor"], ["tcp", "anchor"]])


def message_of(points: int, names: list[str], frame: str, seed: int = 0, stamp: tuple[int, int] = (7, 9)):
    rng = np.random.default_rng(seed)
    message = MultiDOFJointTrajectory(joint_names=names)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    for index in range(points):
        point = MultiDOFJointTrajectoryPoint()
        for name in names:
            transform = Transform()
            p = rng.uniform(0.0, 1.0, 3).tolist()
            transform.translation.x, transform.translation.y, transform.translation.z = p
            if name != "gripper":
                q = Rotation.random(random_state=int(rng.integers(1 << 30))).as_quat().tolist()
                transform.rotation.x, transform.rotation.y, transform.rotation.z, transform.rotation.w = q
            point.transforms.append(transform)
        point.time_from_start.sec, point.time_from_start.nanosec = index // 3, 300_000_000 * (index % 3) + seed % 1000
        message.points.append(point)
    return message


@settings(max_examples=150, deadline=None)
@given(
    points=st.integers(1, 60),
    names=ABSOLUTE_NAMES,
    frame=st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text and text.isprintable()),
    seed=st.integers(0, 10**6),
    stamp=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 10**9 - 1)),
)
def test_bytes_give_to_the_bit_what_the_message_gives(points, names, frame, seed, stamp) -> None:
    message = message_of(points, names, frame, seed, stamp)
    raw = serialize_message(message)
    assert read_chunk_bytes(raw) is not None
    fast = chunk_messages.from_serialised_tool_chunk(raw, "p", "tool", frame)
    read = deserialize_message(raw, MultiDOFJointTrajectory)
    slow = chunk_messages.from_tool_chunk_message(read, "p", "tool", frame)
    for field in dataclasses.fields(ToolChunk):
        np.testing.assert_array_equal(getattr(fast, field.name), getattr(slow, field.name))


def test_rates_other_counts_and_other_byte_orders_are_left_to_rclpy() -> None:
    with_rates = message_of(3, ["tcp"], "base")
    with_rates.points[1].velocities = [Twist()]
    uneven = message_of(3, ["tcp", "gripper"], "base")
    uneven.points[2].transforms = uneven.points[2].transforms[:1]
    shifted = message_of(4, ["tcp", "gripper"], "base")
    shifted.points[1].transforms = [*shifted.points[1].transforms, Transform()]
    shifted.points[2].transforms = shifted.points[2].transforms[:1]
    negative = message_of(2, ["tcp"], "base")
    negative.points[0].time_from_start.sec = -1
    empty = message_of(0, ["tcp"], "base")
    for message in (with_rates, uneven, shifted, negative, empty):
        assert read_chunk_bytes(serialize_message(message)) is None
    raw = serialize_message(message_of(2, ["tcp"], "base"))
    assert read_chunk_bytes(b"\x00\x00" + raw[2:]) is None
    assert (
        chunk_messages.from_serialised_tool_chunk(serialize_message(with_rates), "p", "t", "base").frame == "absolute"
    )
    for message, reason in ((uneven, "point 2 has 1 transforms"), (negative, "at least 0"), (empty, "no points")):
        with pytest.raises(ChunkError, match=reason):
            chunk_messages.from_serialised_tool_chunk(serialize_message(message), "p", "t", "base")


def test_no_part_of_a_message_is_taken_for_a_whole_one() -> None:
    raw = serialize_message(message_of(3, ["tcp", "gripper"], "base"))
    assert read_chunk_bytes(raw) is not None
    for length in range(len(raw)):
        assert read_chunk_bytes(raw[:length]) is None
    assert read_chunk_bytes(raw + b"\0" * 8) is None


@settings(max_examples=300, deadline=None)
@given(noise=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_are_read_as_rclpy_reads_them_or_refused(noise) -> None:
    raw = bytearray(serialize_message(message_of(3, ["tcp", "gripper"], "base")))
    for place, value in noise:
        raw[place % len(raw)] = value
    wire = read_chunk_bytes(bytes(raw))
    if wire is None:
        return
    message = deserialize_message(bytes(raw), MultiDOFJointTrajectory)
    assert wire.names == list(message.joint_names)
    assert wire.frame_id == message.header.frame_id
    rows = [
        [[t.translation.x, t.translation.y, t.translation.z, t.rotation.x, t.rotation.y, t.rotation.z, t.rotation.w]
         for t in point.transforms]
        for point in message.points
    ]  # fmt: skip
    np.testing.assert_array_equal(wire.transforms, rows)
    assert wire.stamp_ns == message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
