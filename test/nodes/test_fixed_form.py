"""Bytes that were filled in are read as the message that rclpy makes of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from vla_ros.nodes import fixed_form, messages
from vla_ros.nodes.fixed_form import FixedForm

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
