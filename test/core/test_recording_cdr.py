"""Tables of messages hold what rosbags' own decoder gives for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

import bags
from bags import TYPES, joint_chunk, joint_state, tool_chunk

from vla_ros.errors import RecordingError
from vla_ros.recording.cdr import lay_out, tabulate

RNG = np.random.default_rng(5)


def joint_states(count: int) -> list[Any]:
    """Of several layouts: other names, fewer velocities, none at all."""
    made = []
    for k in range(count):
        names = [["a", "bb", "ccc"], ["a", "bb", "ccd"], ["x"], []][RNG.integers(4)]
        velocities = RNG.standard_normal(len(names) if k % 3 else 0)
        made.append(joint_state(bags.START_NS + k, names, RNG.standard_normal(len(names)), velocities))
    return made


def targets(count: int) -> list[Any]:
    T = np.eye(4)
    made = []
    for k in range(count):
        T = T.copy()
        T[:3, 3] = RNG.standard_normal(3)
        points = [[T, T]] * int(RNG.integers(1, 4))
        made.append(tool_chunk(bags.START_NS + k, "base", ["tcp", "gripper"], points, range(len(points))))
    return made


def trajectories(count: int) -> list[Any]:
    """Their points have empty sequences of float64 before what needs four bytes only."""
    rows = [RNG.standard_normal((1 + k % 2, 2)) for k in range(count)]
    return [joint_chunk(bags.START_NS + k, ["a", "gripper"], row, range(len(row))) for k, row in enumerate(rows)]


def value(message: Any, path: str) -> Any:
    """A field by its path, as `points[0].positions`."""
    for part in path.split("."):
        name, _, index = part.partition("[")
        message = getattr(message, name)
        if index:
            message = message[int(index.rstrip("]"))]
    return message


@pytest.mark.parametrize("make", [joint_states, targets, trajectories])
@pytest.mark.parametrize("is_little", [True, False])
def test_every_number_and_text_is_that_of_the_usual_decoder(make: Any, is_little: bool) -> None:
    messages = make(40)
    kind = messages[0].__msgtype__
    data = [bytes(TYPES.serialize_cdr(message, kind, little_endian=is_little)) for message in messages]
    rows = []
    for table in tabulate(data, TYPES.fielddefs, kind):
        rows += table.rows.tolist()
        for number, row in enumerate(table.rows):
            decoded = TYPES.deserialize_cdr(data[row], kind)
            assert table.stamps_ns()[number] == bags.START_NS + row
            for path in table.layout.numbers:
                np.testing.assert_array_equal(table.column(path)[number], np.atleast_1d(value(decoded, path)))
            for path, text in table.layout.texts.items():
                assert value(decoded, path) == text
    assert sorted(rows) == list(range(40))


def test_bytes_that_are_no_such_message_are_refused_and_spare_the_others() -> None:
    good = [bytes(TYPES.serialize_cdr(message, message.__msgtype__)) for message in joint_states(6)]
    kind = "sensor_msgs/msg/JointState"
    for data in good:
        for size in range(len(data) - 4):
            with pytest.raises(RecordingError):
                lay_out(data[:size], TYPES.fielddefs, kind)
        with pytest.raises(RecordingError):
            lay_out(data + bytes(8), TYPES.fielddefs, kind)
    bad = [b"", b"\x00", RNG.bytes(60), b"\x00\x01\x00\x00" + b"\xff" * 40]
    found = [row for table in tabulate(bad + good, TYPES.fielddefs, kind) for row in table.rows.tolist()]
    assert sorted(found) == list(range(4, 10))
