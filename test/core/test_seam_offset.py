"""What lies between the motion and a new path: its laws, its limits, and that no stream of chunks makes it swing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from vla_ros.actions.decay_law import DecayLaw
from vla_ros.actions.offset import GentleOffset, Offset, SwiftOffset, SwiftThenGentle, lead_over
from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.turning import angular_motion, rotvec_rates
from vla_ros.geometry import rotations
from vla_ros.types import FloatArray

HALF_S = 0.12
LAW = DecayLaw(HALF_S)
# The tool's in the package's filter: 0.8 of 0.5 m/s, 2 m/s^2, 250 m/s^3.
LIMITS = OffsetLimits(np.full(3, 0.4), np.full(3, 1.6), np.full(3, 200.0))
ONE = OffsetLimits(np.array([0.25]), np.array([1.0]), np.array([25.0]))


def end_of(offset: Offset, dt_s: float) -> float:
    """The first of a row of times at which it has gone."""
    time_s = offset.start_s
    while not offset.has_gone(time_s):
        time_s += dt_s
    return time_s


def law_by_integration(half_s: float, state: FloatArray, times_s: FloatArray) -> FloatArray:
    """The same poles, integrated: (t, 3) value and rates."""
    w = 2.745792 / half_s
    poles = w * np.array([-0.5, -0.5 + 1j * np.sqrt(0.75), -0.5 - 1j * np.sqrt(0.75)])
    _, k2, k1, k0 = np.poly(poles).real
    solved = solve_ivp(
        lambda _t, x: [x[1], x[2], -k0 * x[0] - k1 * x[1] - k2 * x[2]],
        (0.0, times_s[-1]),
        state,
        t_eval=times_s,
        rtol=1e-10,
        atol=1e-12,
    )
    return np.asarray(solved.y.T)


def test_gentle_offset_is_the_law_s_own_solution() -> None:
    state = np.array([[0.01, -0.02], [0.1, 0.0], [-1.0, 2.0]])
    offset, times_s = GentleOffset(LAW, 3.0, state), np.linspace(0.0, 0.8, 30)
    expected = np.stack([law_by_integration(HALF_S, state[:, d], times_s) for d in (0, 1)], axis=2)
    got = np.array([offset.sample(3.0 + t) for t in times_s])
    for order, size in enumerate((1.0, 30.0, 900.0)):
        np.testing.assert_allclose(got[:, order], expected[:, order], atol=1e-7 * size)


@pytest.mark.parametrize("half_s", [0.04, 0.12, 0.3])
def test_half_of_a_gap_is_closed_in_the_half_time_and_nothing_overshoots(half_s: float) -> None:
    offset = GentleOffset(DecayLaw(half_s), 0.0, np.array([[1.0], [0.0], [0.0]]))
    assert offset.sample(half_s)[0, 0] == pytest.approx(0.5, abs=1e-4)
    values = np.array([offset.sample(t)[0, 0] for t in np.linspace(0.0, 20.0 * half_s, 2000)])
    assert values.min() >= 0.0
    assert np.diff(values).max() < 1e-9
    np.testing.assert_array_equal(offset.sample(offset.end_s), np.zeros((3, 1)))
    assert np.abs(offset.sample(offset.end_s - 1e-9)[0]).max() < 1e-7


def test_law_has_less_mean_square_jerk_than_a_quintic_of_the_same_half_time() -> None:
    """Minimum jerk over a fixed time T has 720 d^2 / T^5, and half of it in T / 2."""
    times_s = np.linspace(0.0, 3.0, 60_001)
    acceleration = law_by_integration(HALF_S, np.array([1.0, 0.0, 0.0]), times_s)[:, 2]
    jerk = np.gradient(acceleration, times_s)
    energy = float(np.sum(jerk**2) * (times_s[1] - times_s[0]))
    assert energy == pytest.approx(0.7476 * 720.0 / (2.0 * HALF_S) ** 5, rel=0.005)


@given(st.lists(st.floats(0.004, 0.2), min_size=1, max_size=8), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_gentle_offset_begun_anew_is_the_same_offset(
    steps_s: list[float], velocity: float, acceleration: float
) -> None:
    state = np.array([[0.01], [0.2 * velocity], [3.0 * acceleration]])
    whole = GentleOffset(LAW, 0.0, state)
    part, now_s = whole, 0.0
    for step_s in steps_s:
        now_s += step_s
        part = GentleOffset(LAW, now_s, part.sample(now_s))
    # One may have been left out at 1e-8 before the other.
    for order, size in enumerate((1.0, 30.0, 900.0)):
        got, wanted = part.sample(now_s + 0.05)[order], whole.sample(now_s + 0.05)[order]
        np.testing.assert_allclose(got, wanted, atol=3e-8 * size)


def test_swift_offset_starts_as_given_and_is_gone_in_time() -> None:
    given_state = np.array([[0.1], [-0.2], [0.8]])
    offset = SwiftOffset(5.0, given_state, ONE)
    np.testing.assert_allclose(offset.sample(5.0), given_state, atol=1e-12)
    np.testing.assert_allclose(offset.sample(offset.end_s - 1e-9), 0.0, atol=1e-6)
    np.testing.assert_array_equal(offset.sample(9.0), 0.0)


@pytest.mark.parametrize(
    ("value", "velocity", "acceleration"), [(0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.2, -0.2, 0.5), (-0.1, 0.2, -0.9)]
)
def test_swift_offset_keeps_its_limits(value: float, velocity: float, acceleration: float) -> None:
    offset = SwiftOffset(0.0, np.array([[value], [velocity], [acceleration]]), ONE)
    t = np.linspace(0.0, 3.0, 3001)
    path = np.array([offset.sample(time)[0, 0] for time in t])
    for order, limit in ((1, 0.25), (2, 1.0), (3, 25.0)):
        # Differences are means of derivatives; rounding of 1e-16 grows to 1e-6 in the third.
        assert np.max(np.abs(np.diff(path, order))) / t[1] ** order <= limit * (1.0 + 1e-6)


def test_swift_offset_taken_up_again_and_again_arrives_as_soon() -> None:
    offset, t = SwiftOffset(0.0, np.array([[0.1], [-0.1], [0.0]]), ONE), 0.0
    end_s = offset.end_s
    while t < end_s:
        t += 0.125
        offset = SwiftOffset(t, offset.sample(t), ONE)
    assert np.max(np.abs(offset.sample(t)[0])) < 1e-9


@given(
    st.lists(st.floats(-1.0, 1.0), min_size=9, max_size=9),
    st.floats(-4.0, 0.0),
)
@settings(max_examples=80, deadline=None)
def test_offset_keeps_the_limits_of_norms_and_never_jumps(entries: list[float], size: float) -> None:
    """From any state at half of the limits; a swift one hands over to the gentle law somewhere on its way."""
    state = np.array(entries).reshape(3, 3) / np.sqrt(3.0) * np.array([[10.0**size], [0.2], [0.8]])
    offset = lead_over(LAW, 1.0, state, LIMITS, is_vector=True)
    np.testing.assert_allclose(offset.sample(1.0), state, atol=1e-9)
    dt_s = 0.002
    # Ruckig brings a velocity back that it can't lose within its share of an axis: some percent more, for a moment.
    end_s = end_of(offset, dt_s)
    path = np.array([offset.sample(time_s)[0] for time_s in np.arange(1.0, min(end_s, 7.0) + 4.0 * dt_s, dt_s)])
    for order, limit in ((1, 0.4), (2, 1.6), (3, 200.0)):
        rate = np.linalg.norm(np.diff(path, order, axis=0), axis=1) / dt_s**order
        assert rate.max(initial=0.0) <= limit * 1.05 + 1e-4
    np.testing.assert_array_equal(offset.sample(end_s), np.zeros((3, 3)))


def test_when_an_offset_is_asked_changes_nothing_of_its_way() -> None:
    state = np.array([[0.05, 0.1, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 0.3]])
    asked_each_tick, asked_late = (lead_over(LAW, 0.0, state, LIMITS, is_vector=True) for _ in range(2))
    times_s = np.arange(0.0, end_of(asked_late, 0.004), 0.004).tolist()
    forwards = [asked_each_tick.sample(time_s) for time_s in times_s]
    backwards = [asked_late.sample(time_s) for time_s in reversed(times_s)]
    np.testing.assert_array_equal(forwards, backwards[::-1])
    # It was one that goes over to the gentle law: its end is that law's, much later than the swift one's.
    assert times_s[-1] > 1.5


def test_small_gaps_go_gently_and_large_ones_swiftly_until_they_are_small() -> None:
    rest = np.zeros((3, 3))
    kinds = []
    for gap_m in (0.001, 0.01, 0.03, 0.5):
        state = rest.copy()
        state[0, 1] = gap_m
        kinds.append(type(lead_over(LAW, 0.0, state, LIMITS, is_vector=True)))
    assert kinds == [GentleOffset, GentleOffset, SwiftThenGentle, SwiftThenGentle]


@pytest.mark.parametrize("gap_m", [0.003, 0.03, 0.5])
def test_motion_comes_from_one_side_and_does_not_swing_out(gap_m: float) -> None:
    state = np.zeros((3, 3))
    state[0, 0] = gap_m
    offset = lead_over(LAW, 0.0, state, LIMITS, is_vector=True)
    values = np.array([offset.sample(t)[0, 0] for t in np.arange(0.0, end_of(offset, 0.004), 0.004)])
    # Where the swift one hands over it still brakes: the law lets it pass by a fraction of a millimetre.
    assert values.min() > -3e-4
    assert np.diff(values[values > 0.001]).max() < 0.0


def test_what_may_not_move_is_left_alone() -> None:
    frozen = OffsetLimits(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([10.0, 10.0]))
    offset = lead_over(LAW, 0.0, np.array([[0.5, 0.5], [0.0, 0.1], [0.0, 0.0]]), frozen, is_vector=False)
    assert offset.sample(0.0)[0, 0] == pytest.approx(0.5)
    np.testing.assert_array_equal(offset.sample(0.0)[:, 1], 0.0)


def chase(kind: str, radius_m: float, intervals_s: list[float], rng: np.random.Generator) -> float:
    """Furthest from the middle, over the radius, that targets inside a ball lead a motion."""
    motion, target, furthest = np.zeros((3, 3)), np.zeros(3), 0.0
    for number, interval_s in enumerate(intervals_s):
        heading = motion[1] if np.linalg.norm(motion[1]) > 1e-9 else rng.normal(size=3)
        heading = radius_m * heading / np.linalg.norm(heading)
        anywhere = rng.normal(size=3)
        anywhere *= radius_m * rng.random() ** (1 / 3) / np.linalg.norm(anywhere)
        flipped = np.array([radius_m * (-1.0) ** number, 0.0, 0.0])
        target = {"random": anywhere, "flip": flipped, "against": -heading, "with": heading}[kind]
        offset = lead_over(LAW, 0.0, motion - np.array([target, np.zeros(3), np.zeros(3)]), LIMITS, is_vector=True)
        for t in np.linspace(0.0, interval_s, 7):
            furthest = max(furthest, float(np.linalg.norm(offset.sample(t)[0] + target)))
        motion = offset.sample(interval_s) + np.array([target, np.zeros(3), np.zeros(3)])
    return furthest / radius_m


@given(
    st.sampled_from(["random", "flip", "against", "with"]),
    st.floats(-3.3, 0.0),
    st.one_of(
        st.lists(st.floats(0.02, 0.4), min_size=20, max_size=40),
        st.floats(0.02, 0.4).map(lambda interval_s: [interval_s] * 40),
    ),
    st.integers(0, 2**16),
)
@settings(max_examples=120, deadline=None)
def test_no_stream_of_chunks_swings_the_motion_out(kind: str, size: float, intervals_s: list[float], seed: int) -> None:
    """Targets in a ball, also chosen against the motion, every 20 to 400 ms: it stays in 1.3 times the ball."""
    assert chase(kind, 10.0**size, intervals_s, np.random.default_rng(seed)) < 1.3


def test_motion_that_is_no_longer_pushed_comes_to_rest_on_its_path() -> None:
    rng = np.random.default_rng(2)
    for size in (0.005, 0.05, 0.5):
        offset = lead_over(LAW, 0.0, size * rng.normal(0.0, [[1.0], [0.5], [2.0]], (3, 3)), LIMITS, is_vector=True)
        now_s = 0.0
        # Again and again with chunks that mean the same.
        for _ in range(60):
            now_s += 0.1
            offset = lead_over(LAW, now_s, offset.sample(now_s), LIMITS, is_vector=True)
        assert np.abs(offset.sample(now_s)[0]).max() < 1e-6


def test_angular_motion_is_the_derivative_of_the_rotation() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.003, 0.08, 0.5, 1.5, 4.0):
        for _ in range(20):
            r0, r1, r2 = rng.normal(0.0, scale, 3), rng.normal(0.0, 1.0, 3), rng.normal(0.0, 2.0, 3)
            h = 1e-4
            R = [rotations.rotvec_to_matrix(r0 + r1 * t + 0.5 * r2 * t * t) for t in (-h, 0.0, h)]
            before, after = (rotations.matrix_to_rotvec(b @ a.T) / h for a, b in ((R[0], R[1]), (R[1], R[2])))
            velocity, acceleration = angular_motion(r0.tolist(), r1.tolist(), r2.tolist())
            np.testing.assert_allclose(velocity, 0.5 * (before + after), atol=1e-6 * (1.0 + scale))
            # Rounding of 1e-16 over h^2 is 1e-8; the rest is h^2 times a fourth derivative.
            np.testing.assert_allclose(acceleration, (after - before) / h, atol=2e-5)


def test_rates_of_a_rotation_vector_are_the_inverse_of_its_angular_motion() -> None:
    rng = np.random.default_rng(4)
    for scale in (0.0, 0.01, 0.3, 1.5):
        rotvec, rate, rate2 = (tuple(rng.normal(0.0, s, 3).tolist()) for s in (scale, 1.0, 3.0))
        back = rotvec_rates(rotvec, *angular_motion(rotvec, rate, rate2))
        np.testing.assert_allclose(back, (rate, rate2), atol=1e-9)
