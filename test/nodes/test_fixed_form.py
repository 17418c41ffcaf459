"""Bytes that were filled in are read as the message that rclpy makes of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.nodes import chunk_messages, fixed_form, messages
from vla_ros.nodes.fixed_form import FixedForm
from vla_ros.nodes.target_publisher import TargetPublisher
from vla_ros.robots.config import load_robot
from vla_ros.types import JointTarget, ToolTarget

pytestmark = pytest.mark.ros

NAMES = {1: ["a"], 6: [f"joint_{i}" for i in range(6)], 7: [f"panda_joint{i}" for i in range(7)]}


def joint_state(names: list[str]):
    return lambda stamp_ns, q, dq: messages.to_joint_state(stamp_ns, names, q, dq)


@pytest.mark.parametrize("joints", sorted(NAMES))
def test_filled_bytes_are_read_as_the_message_of_the_same_numbers(joints: int) -> None:
    make = joint_state(NAMES[joints])
    form = FixedForm(make, (joints, joints))
    rng = np.random.default_rng(joints)
    for stamp_ns in (0, 1, 1_700_000_000_999_999_999, 2**31 * 1_000_000_000 - 1):
        rows = rng.normal(size=(2, joints))
        filled = form.fill(stamp_ns, *rows)
        assert type(filled) is bytes
        assert deserialize_message(filled, JointState) == make(stamp_ns, *rows)
    rows[0, 0], rows[1, 0] = np.nan, -np.inf
    read = deserialize_message(form.fill(5, *rows), JointState)
    np.testing.assert_array_equal([read.position, read.velocity], rows)


@pytest.mark.parametrize("joints", sorted(NAMES))
def test_filled_bytes_end_where_the_message_ends(joints: int) -> None:
    """As counted from the layout of plain CDR: rosbags and others refuse more."""
    place = 4 + 8 + 4 + 1  # Encapsulation, stamp, and a frame_id of nothing but its zero.
    place += -place % 4 + 4
    for name in NAMES[joints]:
        place += -place % 4 + 4 + len(name) + 1
    for count in (joints, joints, 0):
        place += -place % 4 + 4
        place += -(place - 4) % 8 + 8 * count if count else 0
    assert (
        len(FixedForm(joint_state(NAMES[joints]), (joints, joints)).fill(1, np.ones(joints), np.ones(joints))) == place
    )


def test_message_without_a_stamp_is_filled_too() -> None:
    form = FixedForm(lambda _stamp_ns, q: Float64MultiArray(data=q.tolist()), (3,))
    read = deserialize_message(form.fill(0, np.array([1.0, 2.0, 3.0])), Float64MultiArray)
    assert list(read.data) == [1.0, 2.0, 3.0]


def test_rows_that_are_not_contiguous_or_not_floats_are_filled_as_their_numbers() -> None:
    form = FixedForm(joint_state(NAMES[6]), (6, 6))
    rows = np.arange(24).reshape(12, 2)
    read = deserialize_message(form.fill(5, rows[:6, 0], rows[6:, 1]), JointState)
    assert list(read.position) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert list(read.velocity) == [13.0, 15.0, 17.0, 19.0, 21.0, 23.0]


def test_where_numbers_are_not_found_messages_are_made_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    other_order = bytes(reversed(serialize_message(joint_state(NAMES[1])(1, np.ones(1), np.ones(1)))))
    monkeypatch.setattr(fixed_form, "serialize_message", lambda _message: other_order)
    message = FixedForm(joint_state(NAMES[1]), (1, 1)).fill(9, np.array([4.0]), np.array([5.0]))
    assert (list(message.position), messages.to_ns(message.header.stamp)) == ([4.0], 9)


def test_a_row_of_another_width_is_not_pressed_into_the_form() -> None:
    message = FixedForm(joint_state(NAMES[6]), (6, 6)).fill(9, np.ones(7), np.ones(6))
    assert len(message.position) == 7


@pytest.mark.parametrize("opening", [None, 0.25])
def test_targets_are_published_as_their_messages_are(opening: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rclpy.init()
    try:
        robot = load_robot("panda")
        publisher = TargetPublisher(rclpy.create_node("target_publisher"), robot)
        sent = []
        for one in (publisher._tool, publisher._joint):
            monkeypatch.setattr(one, "publish", sent.append)
            monkeypatch.setattr(one, "get_subscription_count", lambda: 1)
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_rotvec([0.3, -0.2, 1.1]).as_matrix(), (0.4, -0.1, 0.3)
        tool = ToolTarget(1_700_000_000_000_000_123, T, np.arange(6.0), opening)
        joint = JointTarget(1_700_000_000_000_000_456, np.arange(7.0), -np.arange(7.0), opening)
        publisher.publish(tool)
        publisher.publish(joint)
    finally:
        rclpy.try_shutdown()
    assert all(type(raw) is bytes for raw in sent)
    assert deserialize_message(sent[0], MultiDOFJointTrajectory) == chunk_messages.to_target_message(
        tool, robot.base_frame
    )
    assert deserialize_message(sent[1], JointTrajectory) == chunk_messages.to_joint_target_message(
        joint, robot.joint_names
    )
