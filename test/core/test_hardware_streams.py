"""What real arms make of their command streams: numbers by hand, and naive finite differences as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.hardware import franka_stream, servoj
from vla_ros.hardware.franka_stream import FrankaStream
from vla_ros.hardware.servoj import Servoj
from vla_ros.robots.config import load_robot
from vla_ros.types import FloatArray

FR3, UR5E = load_robot("fr3"), load_robot("ur5e")
FR3_HOME = np.array([joint.home_rad for joint in FR3.joints])
UR_HOME = np.array([joint.home_rad for joint in UR5E.joints])
A, J = 10.0, 5000.0
"""Acceleration and jerk of every joint of an FR3, rad/s^2 and rad/s^3, by Franka's page."""


def first_reflex(way_rad: FloatArray, joint: int, start: FloatArray = FR3_HOME):
    """The cycle and reflex at which a stream of ways of one joint ends, from rest at 0."""
    stream = FrankaStream(FR3.joints)
    stream.begin(start)
    for cycle, rad in enumerate(way_rad):
        wanted = start.copy()
        wanted[joint] += rad
        reflex = stream.step(wanted)
        if reflex is not None:
            return cycle, reflex
    return None


def smooth_way(top_rad_s: float, acceleration: float = 0.9 * A) -> FloatArray:
    """Positions whose third differences are ±0.9 jerk or 0: up to a speed, and as long at it as it took."""
    jerk, dt_s = 0.9 * J, 0.001
    rising = round(acceleration / jerk / dt_s)
    level = round(top_rad_s / (rising * jerk * dt_s) / dt_s) - rising
    jerks = np.concatenate([[jerk] * rising, [0.0] * level, [-jerk] * rising, [0.0] * (level + 2 * rising)])
    return np.cumsum(np.cumsum(np.cumsum(jerks) * dt_s) * dt_s) * dt_s


def test_staircase_of_250_hz_at_a_tenth_of_a_radian_a_second_trips_a_franka() -> None:
    # 0.4 mrad every 4 ms: 0.4 rad/s in the first millisecond, 400 rad/s^2 against 10, 4e5 rad/s^3 against 5000.
    way = 0.1 * 0.004 * (np.arange(40) // 4)
    cycle, reflex = first_reflex(way, 2)
    assert cycle == 4
    assert reflex.error == "joint_motion_generator_velocity_discontinuity"
    assert reflex.errors == (reflex.error, "joint_motion_generator_acceleration_discontinuity")
    assert reflex.joint == "fr3_joint3"
    assert reflex.value == pytest.approx(400.0)
    assert reflex.limit == A


def test_stream_that_keeps_every_limit_passes() -> None:
    assert first_reflex(smooth_way(1.5), 4) is None


@pytest.mark.parametrize(
    ("way", "joint", "error", "limit"),
    [
        # At 0.9 of the acceleration, but built up in a millisecond: 9 / 0.001 = 9000 rad/s^3.
        (np.cumsum(np.cumsum(np.full(50, 9.0)) * 0.001) * 0.001, 0, franka_stream.JERK, J),
        (smooth_way(1.0, acceleration=1.2 * A), 0, franka_stream.ACCELERATION, A),
        (smooth_way(2.8), 0, franka_stream.VELOCITY, 2.62),
    ],
)
def test_each_limit_has_the_error_of_its_name(way, joint, error, limit) -> None:
    _, reflex = first_reflex(way, joint)
    assert reflex.errors == (error,)
    assert reflex.limit == pytest.approx(limit)


def test_velocity_limit_of_an_fr3_shrinks_towards_the_end_of_the_range() -> None:
    # By hand: -0.30 + sqrt(12 (2.7501 - 2.70)) = 0.4754 rad/s at 2.70 rad of joint 1, up; down it is still 2.62.
    start = FR3_HOME.copy()
    start[0] = 2.70 - 0.5 * 0.6**2 / 9.0
    _, reflex = first_reflex(smooth_way(0.6), 0, start)
    assert reflex.error == "joint_motion_generator_velocity_limits_violation"
    at_rad = 2.7501 - (reflex.limit + 0.30) ** 2 / 12.0
    assert 2.65 < at_rad < 2.70
    assert first_reflex(-smooth_way(0.6), 0, start) is None


def test_position_past_the_range_is_named_with_its_joint_and_side() -> None:
    stream = FrankaStream(FR3.joints)
    wanted = FR3_HOME.copy()
    wanted[5] = 0.5
    stream.begin(wanted)
    reflex = stream.step(wanted)
    assert (reflex.error, reflex.joint) == ("joint_motion_generator_position_limits_violation", "fr3_joint6")
    assert (reflex.value, reflex.limit) == (0.5, 0.5445)


def test_position_that_is_none_is_no_command() -> None:
    stream = FrankaStream(FR3.joints)
    wanted = FR3_HOME.copy()
    wanted[1] = math.nan
    assert stream.step(wanted).joint == "fr3_joint2"


def test_measured_speed_past_the_limit_is_a_joint_velocity_violation() -> None:
    stream = FrankaStream(FR3.joints)
    velocities = np.zeros(7)
    assert stream.measure(FR3_HOME, velocities) is None
    velocities[6] = -5.4
    reflex = stream.measure(FR3_HOME, velocities)
    assert (reflex.error, reflex.joint) == ("joint_velocity_violation", "fr3_joint7")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3e-3, 3e-3), min_size=4, max_size=25), st.sampled_from([1e-3, 1e-2, 1.0]))
def test_reflexes_and_extremes_are_those_of_naive_differences(steps: list[float], scale: float) -> None:
    way = np.cumsum(np.array(steps) * scale)
    padded = np.concatenate([np.zeros(3), way])
    v, a, j = (np.diff(padded, n=order)[3 - order :] / 1e-3**order for order in (1, 2, 3))
    stream, joint = FrankaStream(FR3.joints), 4
    stream.begin(FR3_HOME)
    for index, rad in enumerate(way):
        wanted = FR3_HOME.copy()
        wanted[joint] += rad
        reflex = stream.step(wanted)
        excess = {
            franka_stream.VELOCITY: abs(v[index]) - 5.26,
            franka_stream.ACCELERATION: abs(a[index]) - A,
            franka_stream.JERK: abs(j[index]) - J,
        }
        found = set(reflex.errors if reflex else ())
        # What is nearer to a limit than tolerance and rounding may go either way.
        assert {name for name, over in excess.items() if over > 0.02} <= found
        assert found <= {name for name, over in excess.items() if over > -0.02}
    extremes = stream.limits.extremes
    # The speed's limit is lower near the ends alone; home is in the middle.
    assert extremes.velocity == pytest.approx(np.abs(v).max() / 5.26, rel=1e-6, abs=1e-9)
    assert extremes.acceleration == pytest.approx(np.abs(a).max() / A, rel=1e-6, abs=1e-6)
    assert extremes.jerk == pytest.approx(np.abs(j).max() / J, rel=1e-6, abs=1e-6)
    assert stream.limits.forget() == extremes
    assert stream.limits.extremes.jerk == 0.0


def run_servoj(targets: FloatArray, joint: int = 0) -> tuple[FloatArray, str | None, Servoj]:
    """Where servoj goes with a joint, the arm following at once; and why it stopped."""
    arm = Servoj(UR5E.joints)
    arm.begin(UR_HOME)
    path = []
    for rad in targets:
        wanted = UR_HOME.copy()
        wanted[joint] += rad
        reason = arm.step(wanted, arm.positions)
        if reason is not None:
            return np.array(path), reason, arm
        path.append(arm.positions[joint] - UR_HOME[joint])
    return np.array(path), None, arm


def test_servoj_lags_behind_a_steady_motion_by_its_lookahead() -> None:
    ramp = 0.5 * 0.002 * np.arange(1, 1001)
    path, reason, _ = run_servoj(ramp)
    assert reason is None
    # Two cycles at most are the discrete steps' own.
    assert (ramp[-1] - path[-1]) / 0.5 == pytest.approx(0.03, abs=0.004)


def test_servoj_follows_the_differential_equation_of_its_documentation() -> None:
    from scipy.integrate import solve_ivp

    path, _, _ = run_servoj(np.full(500, 0.03))
    times_s = 0.002 * np.arange(1, 501)
    solution = solve_ivp(
        lambda _t, y: (y[1], 2000.0 * (0.03 - y[0] - 0.03 * y[1])), (0.0, 1.0), [0.0, 0.0], t_eval=times_s, rtol=1e-8
    )
    # Euler's steps of 2 ms, at 45 rad/s.
    np.testing.assert_allclose(path, solution.y[0], atol=0.002)


def test_ur_stops_where_the_stream_is_faster_than_its_safety_allows() -> None:
    # 191 deg/s is 3.334 rad/s. Damped by 0.67, servoj overshoots a sudden speed by 6 %: 3.0 passes, 3.4 doesn't.
    slow, fast = (speed * 0.002 * np.arange(1, 501) for speed in (3.0, 3.4))
    assert run_servoj(slow)[1] is None
    _, reason, _ = run_servoj(fast, joint=2)
    assert reason == "speed of elbow_joint"


def test_target_too_far_for_one_cycle_is_left_out_until_one_is_near() -> None:
    # 20 rad/s in 2 ms: 40 mrad.
    path, reason, arm = run_servoj(np.array([0.0] * 5 + [0.05] * 50))
    assert reason is None
    assert arm.ignored == 50
    assert np.abs(path).max() == 0.0
    path, _, arm = run_servoj(np.array([0.0] * 5 + [0.039] * 300))
    assert arm.ignored == 0
    assert path[-1] == pytest.approx(0.039, abs=1e-4)


def test_ur_stops_when_the_arm_is_held_back_from_its_path() -> None:
    arm = Servoj(UR5E.joints)
    arm.begin(UR_HOME)
    ramp = 1.0 * 0.002 * np.arange(1, 501)
    for cycle, rad in enumerate(ramp):  # noqa: B007
        wanted = UR_HOME.copy()
        wanted[1] += rad
        reason = arm.step(wanted, UR_HOME)
        if reason is not None:
            break
    assert reason == "deviation from the path of shoulder_lift_joint"
    # The path is 0.2 rad away some 0.03 s after the target is.
    assert cycle * 0.002 == pytest.approx(0.2 + 0.03, abs=0.02)


def test_cycles_are_those_of_the_robots() -> None:
    assert (franka_stream.CYCLE_S, servoj.CYCLE_S) == (0.001, 0.002)


def test_target_near_the_arm_is_taken_although_it_is_far_from_the_target_before() -> None:
    """As the script has it for a hold after a stream that the arm couldn't follow."""
    arm = Servoj(UR5E.joints)
    arm.begin(UR_HOME)
    for rad in 0.03 * np.arange(1, 4):
        assert arm.step(UR_HOME + rad, UR_HOME) is None
    assert arm.step(UR_HOME + 0.01, UR_HOME) is None
    assert arm.ignored == 0
    assert arm.step(UR_HOME + 0.2, UR_HOME) is None
    assert arm.ignored == 1
