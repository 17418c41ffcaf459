"""The buffer of joint states: interpolation, its ends, refused stamps, jumps of the clock."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.errors import SensorError
from vla_ros.robots.state_buffer import JointStateBuffer, StampOutsideBufferError
from vla_ros.types import RobotState

MS = 1_000_000


def state(stamp_ns: int, value: float = 0.0, opening: float | None = 0.0) -> RobotState:
    return RobotState(stamp_ns, np.array([value, -value]), np.array([2.0 * value, 0.0]), opening)


def test_a_state_between_two_is_interpolated_in_all_its_parts() -> None:
    buffer = JointStateBuffer(10)
    assert buffer.append(state(100 * MS, 1.0, opening=0.0))
    assert buffer.append(state(104 * MS, 2.0, opening=1.0))
    found = buffer.at(101 * MS)
    assert found.stamp_ns == 101 * MS
    np.testing.assert_allclose(found.positions, [1.25, -1.25])
    np.testing.assert_allclose(found.velocities, [2.5, 0.0])
    assert found.gripper_opening == pytest.approx(0.25)


def test_an_unknown_opening_stays_unknown() -> None:
    buffer = JointStateBuffer(10)
    buffer.append(state(0, opening=None))
    buffer.append(state(10, opening=1.0))
    buffer.append(state(20, opening=None))
    assert buffer.at(5).gripper_opening is None
    assert buffer.at(15).gripper_opening is None
    assert buffer.at(10).gripper_opening == 1.0


# Every state lies on one line, so whatever the gaps, interpolation must give the line back.
@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 400 * MS), min_size=2, max_size=60), st.integers(2, 20), st.data())
def test_a_line_is_given_back_between_the_oldest_kept_and_the_newest(
    steps: list[int], capacity: int, data: st.DataObject
) -> None:
    stamps = [int(s) for s in np.cumsum(steps)]
    buffer = JointStateBuffer(capacity)
    for stamp in stamps:
        assert buffer.append(state(stamp, 1e-9 * stamp))
    kept = stamps[-capacity:]
    assert len(buffer) == len(kept)
    asked = data.draw(st.integers(kept[0], kept[-1]))
    # Seconds near 1 in double precision.
    np.testing.assert_allclose(buffer.at(asked).positions[0], 1e-9 * asked, atol=1e-12)
    with pytest.raises(StampOutsideBufferError) as before:
        buffer.at(kept[0] - 1)
    assert before.value.distance_ns == 1


def test_a_state_that_the_ring_has_dropped_is_gone() -> None:
    buffer = JointStateBuffer(4)
    for stamp in range(7):
        buffer.append(state(stamp))
    for stamp in (0, 1, 2):
        with pytest.raises(StampOutsideBufferError) as caught:
            buffer.at(stamp)
        assert caught.value.distance_ns == 3 - stamp
    assert buffer.at(3).stamp_ns == 3


def test_past_the_ends_the_end_holds_within_the_tolerance_and_no_further() -> None:
    buffer = JointStateBuffer(10)
    buffer.append(state(100 * MS, 1.0))
    buffer.append(state(200 * MS, 2.0))
    late = buffer.at(205 * MS, tolerance_ns=5 * MS)
    assert (late.stamp_ns, late.positions[0]) == (205 * MS, 2.0)
    assert buffer.at(95 * MS, tolerance_ns=5 * MS).positions[0] == 1.0
    with pytest.raises(
        StampOutsideBufferError, match=r"5\.0 ms before the stamp asked for \(limit 4\.0 ms\)"
    ) as caught:
        buffer.at(205 * MS, tolerance_ns=4 * MS)
    assert (caught.value.distance_ns, caught.value.tolerance_ns) == (-5 * MS, 4 * MS)
    with pytest.raises(StampOutsideBufferError, match=r"5\.0 ms after the stamp asked for"):
        buffer.at(95 * MS, tolerance_ns=4 * MS)


def test_an_empty_buffer_says_so() -> None:
    buffer = JointStateBuffer(10)
    assert buffer.newest() is None
    with pytest.raises(SensorError, match="no joint state yet"):
        buffer.at(0)


def test_a_stamp_that_is_not_newer_is_refused_and_changes_nothing() -> None:
    buffer = JointStateBuffer(10)
    buffer.append(state(100, 1.0))
    for stamp in (100, 99):
        assert not buffer.append(state(stamp, 5.0))
        assert "older than the one before" in str(buffer.refusal)
    newest = buffer.newest()
    assert newest is not None
    assert (newest.stamp_ns, newest.positions[0], len(buffer)) == (100, 1.0, 1)
    assert buffer.jump_ns is None
    assert buffer.append(state(101))
    assert buffer.refusal is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_refused(value: float) -> None:
    buffer = JointStateBuffer(10)
    assert not buffer.append(state(100, value))
    assert not buffer.append(RobotState(100, np.zeros(2), np.array([0.0, value])))
    assert buffer.newest() is None
    assert buffer.refusal == "joint state isn't finite"


def test_a_jump_back_is_flagged_and_the_buffer_goes_on_after_clearing() -> None:
    buffer = JointStateBuffer(10)
    buffer.append(state(10_000 * MS))
    assert not buffer.append(state(4_000 * MS))
    assert buffer.jump_ns == -6_000 * MS
    buffer.clear()
    forgotten: tuple[object, ...] = (buffer.jump_ns, buffer.refusal, len(buffer))
    assert forgotten == (None, None, 0)
    assert buffer.append(state(4_004 * MS))


def test_a_jump_ahead_is_flagged_and_nothing_is_interpolated_across_it() -> None:
    buffer = JointStateBuffer(10)
    buffer.append(state(0, 1.0))
    assert buffer.append(state(2_000 * MS, 3.0))
    assert buffer.jump_ns == 2_000 * MS
    assert buffer.at(1_990 * MS, tolerance_ns=20 * MS).positions[0] == 3.0
    assert buffer.at(10 * MS, tolerance_ns=20 * MS).positions[0] == 1.0
    with pytest.raises(StampOutsideBufferError):
        buffer.at(1_000 * MS, tolerance_ns=20 * MS)


def test_a_capacity_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity 1 is below 2"):
        JointStateBuffer(1)


def test_readers_and_the_writer_do_not_disturb_each_other() -> None:
    buffer = JointStateBuffer(16)
    buffer.append(state(1, 1.0))
    buffer.append(state(2, 2.0))
    errors: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                newest = buffer.newest()
                assert newest is not None
                found = buffer.at(newest.stamp_ns - 1)
                assert found.positions[0] == found.stamp_ns
            except StampOutsideBufferError:
                pass  # The writer has gone past it meanwhile.
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for stamp in range(3, 5_000):
        assert buffer.append(state(stamp, float(stamp)))
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
