"""The buffer of joint states: interpolation, its ends, refused stamps, jumps of the clock."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.errors import SensorError
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
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


JUMP_NS = 500 * MS
# Steps of the stamps: in order, twice the same, out of order, and past the limit either way.
STEPS = st.one_of(
    st.integers(1, 20 * MS),
    st.just(0),
    st.integers(-20 * MS, -1),
    st.integers(JUMP_NS, 3 * JUMP_NS),
    st.integers(-3 * JUMP_NS, -JUMP_NS),
)


def looked_up(kept: list[RobotState], stamp_ns: int, tolerance_ns: int) -> float | None:
    """Position at a time by walking over all states, None where none may be given."""
    for before, after in pairwise(kept):
        if before.stamp_ns <= stamp_ns <= after.stamp_ns and after.stamp_ns - before.stamp_ns <= JUMP_NS:
            share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
            return float((1.0 - share) * before.positions[0] + share * after.positions[0])
    distance_ns, nearest = min((abs(kept_state.stamp_ns - stamp_ns), i) for i, kept_state in enumerate(kept))
    return float(kept[nearest].positions[0]) if distance_ns <= tolerance_ns else None


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(STEPS, st.floats(-3.0, 3.0)), min_size=1, max_size=40),
    capacity=st.integers(2, 8),
    tolerance_ns=st.sampled_from([0, 5 * MS, JUMP_NS]),
    data=st.data(),
)
def test_whatever_the_stamps_do_the_buffer_answers_as_a_plain_list_would(
    steps: list[tuple[int, float]], capacity: int, tolerance_ns: int, data: st.DataObject
) -> None:
    buffer, taken, jump_ns = JointStateBuffer(capacity, JUMP_NS), [state(10_000 * MS)], None
    assert buffer.append(taken[0])
    for step_ns, value in steps:
        offered = state(taken[-1].stamp_ns + step_ns, value)
        assert buffer.append(offered) == (step_ns > 0)
        jump_ns = step_ns if abs(step_ns) > JUMP_NS else jump_ns
        taken += [offered] if step_ns > 0 else []
        assert buffer.jump_ns == jump_ns
        assert (buffer.refusal is None) == (step_ns > 0)
        assert buffer.newest() is taken[-1]
        kept = taken[-capacity:]
        assert len(buffer) == len(kept)

        asked = data.draw(st.integers(kept[0].stamp_ns - 2 * JUMP_NS, kept[-1].stamp_ns + 2 * JUMP_NS))
        expected = looked_up(kept, asked, tolerance_ns)
        if expected is None:
            with pytest.raises(StampOutsideBufferError) as caught:
                buffer.at(asked, tolerance_ns)
            assert abs(caught.value.distance_ns) == min(abs(kept_state.stamp_ns - asked) for kept_state in kept)
        else:
            found = buffer.at(asked, tolerance_ns)
            assert found.stamp_ns == asked
            assert found.positions[0] == pytest.approx(expected, abs=1e-12)
            # Between two states, never beyond them.
            values = [kept_state.positions[0] for kept_state in kept]
            assert min(values) - 1e-12 <= found.positions[0] <= max(values) + 1e-12


def test_forward_kinematics_at_a_stamp_are_those_of_the_motion_there() -> None:
    """What a wrist camera's pose hangs on: joints sampled at 100 Hz on a smooth motion, asked for in between."""
    model = RobotModel.from_config(load_robot("panda"))
    swing, amplitude = 2.0 * np.pi * np.linspace(0.1, 0.4, 7), 0.3

    def moved(stamp_ns: int) -> RobotState:
        angle = swing * stamp_ns * 1e-9
        return RobotState(stamp_ns, model.home + amplitude * np.sin(angle), amplitude * swing * np.cos(angle))

    buffer = JointStateBuffer(200)
    for k in range(100):
        assert buffer.append(moved(10 * MS * k))
    for stamp_ns in np.random.default_rng(5).integers(0, 990 * MS, 200).tolist():
        T_base_tcp = model.forward_kinematics(buffer.at(stamp_ns).positions)
        expected = model.forward_kinematics(moved(stamp_ns).positions)
        # Linear between samples dt apart: off by at most acceleration * dt^2 / 8 = 0.3 * 2.5^2 * 0.01^2 / 8 = 23 urad a
        # joint, times less than 1 m of arm, seven joints.
        assert np.abs(T_base_tcp - expected).max() < 7 * 23e-6


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
