"""The judge of joint limits: closed forms, an exact twin, and that lost ticks never make a violation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.evaluation.differences import mean_derivatives, rounding_bounds
from vla_ros.evaluation.limits_judge import POSITION_QUANTUM_RAD, RELATIVE_TOLERANCE, LimitReport, judge_limits
from vla_ros.types import FloatArray

MS = 1_000_000
T0_NS = 1_763_800_000_123_456_789  # As far from 0 as ROS time is.


@dataclass(frozen=True)
class Limits:
    names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray


def limits(joints: int = 1, position=10.0, velocity=1e9, acceleration=1e9, jerk=1e9) -> Limits:
    def all_joints(value):
        return np.full(joints, float(value))

    names = tuple(f"j{i}" for i in range(joints))
    return Limits(names, *map(all_joints, (-position, position, velocity, acceleration, jerk)))


def judge(stamps_ns, positions, bounds=None, **options) -> LimitReport:
    positions = np.asarray(positions, dtype=float)
    positions = positions[:, None] if positions.ndim == 1 else positions
    return judge_limits(
        np.asarray(stamps_ns, dtype=np.int64), positions, bounds or limits(positions.shape[1]), **options
    )


def ticks(count: int, step_ms: float = 4.0) -> np.ndarray:
    return T0_NS + np.arange(count) * round(step_ms * MS)


def seconds(stamps_ns: np.ndarray) -> FloatArray:
    return 1e-9 * (stamps_ns - stamps_ns[0])


def test_peaks_of_a_sinusoid_are_its_amplitudes() -> None:
    amplitude, omega = 0.7, 3.0
    stamps = ticks(2500, 1.0)
    bounds = limits(1, 1.0, amplitude * omega, amplitude * omega**2, amplitude * omega**3)
    report = judge(stamps, amplitude * np.sin(omega * seconds(stamps)), bounds)
    assert report.is_clean
    for peak in (report.peak_velocity_fraction, report.peak_acceleration_fraction, report.peak_jerk_fraction):
        # A mean over at most 3 ms of a sine of 3 rad/s lacks 2e-6 of its peak; rounding shows 2e-5 of this jerk.
        assert 1.0 - 1e-5 < peak < 1.0 + 1e-4


def test_constant_jerk_is_found_exactly_at_uneven_ticks() -> None:
    steps = np.random.default_rng(0).integers(1 * MS, 9 * MS, 400)
    stamps = T0_NS + np.concatenate(([0], np.cumsum(steps)))
    t = seconds(stamps)
    report = judge(stamps, 5.0 * t**3 / 6.0, limits(1, 100.0, 1.0, 1.0, 5.0))
    assert report.peak_jerk_fraction == pytest.approx(1.0, abs=1e-3)  # Positions of 5 rad, steps of 1 ms.
    # The mean of a linear acceleration under a B-spline is its value at the mean of the knots.
    assert report.peak_acceleration_fraction == pytest.approx(5.0 * t[-3:].mean(), rel=1e-6)
    assert report.violations["jerk"] == 0
    assert report.violations["velocity"] > 0


def test_limit_on_one_side_of_the_peak_decides() -> None:
    stamps = ticks(2500, 1.0)
    positions = 0.7 * np.sin(3.0 * seconds(stamps))
    exact = 0.7 * 27.0
    assert judge(stamps, positions, limits(jerk=exact)).is_clean
    report = judge(stamps, positions, limits(jerk=0.999 * exact))
    assert not report.is_clean
    assert {name for name, count in report.violations.items() if count} == {"jerk"}
    first = report.first_violations["jerk"]
    assert first.limit == pytest.approx(-0.999 * exact)
    assert first.value == pytest.approx(-exact, rel=1e-4)  # The jerk of a sine begins with its trough.
    assert "jerk of j0" in str(first)


def test_velocities_of_opposite_sign_are_judged_alike() -> None:
    stamps = ticks(10)
    for sign in (1.0, -1.0):
        report = judge(stamps, sign * 2.0 * seconds(stamps), limits(velocity=1.0))
        assert report.violations["velocity"] == 9
        assert report.first_violations["velocity"].limit == sign


def feasible(jerks: list[float], steps_ns: list[int]) -> tuple[np.ndarray, FloatArray, Limits]:
    """Motion under a jerk that is constant between ticks, from rest, with the tightest limits that it keeps."""
    q = v = a = 0.0
    positions, speeds, accelerations = [q], [0.0], [0.0]
    for jerk, step_ns in zip(jerks, steps_ns, strict=True):
        h = 1e-9 * step_ns
        if jerk != 0.0 and 0.0 < -a / jerk < h:
            speeds.append(abs(v - a * a / (2.0 * jerk)))  # Where the acceleration passes 0.
        q, v, a = q + h * (v + h * (a / 2.0 + h * jerk / 6.0)), v + h * (a + h * jerk / 2.0), a + h * jerk
        positions.append(q)
        speeds.append(abs(v))
        accelerations.append(abs(a))
    stamps = T0_NS + np.concatenate(([0], np.cumsum(steps_ns)))
    bounds = limits(1, 1e3, max(speeds), max(accelerations), max(map(abs, jerks)))
    return stamps, np.array(positions), bounds


motions = st.integers(4, 120).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-4000.0, 4000.0).map(lambda j: round(j, 3)), min_size=n, max_size=n),
        st.lists(st.integers(1 * MS, 8 * MS), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n + 1, max_size=n + 1),
    )
)


@settings(max_examples=200, deadline=None)
@given(motions)
def test_losing_ticks_of_a_feasible_motion_makes_no_violation(motion) -> None:
    jerks, steps_ns, kept = motion
    stamps, positions, bounds = feasible(jerks, steps_ns)
    assert judge(stamps, positions, bounds).is_clean
    keep = np.array(kept)
    report = judge(stamps[keep], positions[keep], bounds)
    assert report.is_clean, report.first_violations


@settings(max_examples=100, deadline=None)
@given(st.integers(3, 60), st.floats(2e-6, 1e-3), st.sampled_from([-1.0, 1.0]))
def test_one_step_that_is_too_large_is_found(tick: int, size: float, sign: float) -> None:
    """A step of s shows as a jerk of s / h^3 and more; the arm of this test may do 20 rad/s^3."""
    stamps = ticks(64)
    positions = 0.01 * np.sin(2.0 * seconds(stamps))
    bounds = limits(jerk=20.0)
    assert judge(stamps, positions, bounds).is_clean
    positions[tick:] += sign * size
    report = judge(stamps, positions, bounds)
    assert 1 <= report.violations["jerk"] <= 3
    assert report.first_violations["jerk"].time_s == pytest.approx(0.004 * tick, abs=0.0041)


def exact_twin(stamps_ns, positions, bounds: Limits, quantum: float) -> dict[str, int]:
    """Counts violations by the definition of the divided difference, in fractions, one window at a time."""
    counts = {"position": 0, "velocity": 0, "acceleration": 0, "jerk": 0}
    received = [0] + [i for i in range(1, len(stamps_ns)) if stamps_ns[i] != stamps_ns[i - 1]]
    for joint in range(positions.shape[1]):
        for i in received:
            q = positions[i, joint]
            counts["position"] += not bounds.lower[joint] - quantum / 2 <= q <= bounds.upper[joint] + quantum / 2
        for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
            for first in range(len(received) - order):
                window = received[first : first + order + 1]
                times = [Fraction(int(stamps_ns[i]), 10**9) for i in window]
                if any(b <= a for a, b in pairwise(times)):
                    continue
                value = slack = Fraction(0)
                for i, t in zip(window, times, strict=True):
                    weight = math.factorial(order) / math.prod(t - other for other in times if other != t)
                    value += weight * Fraction(float(positions[i, joint]))
                    slack += abs(weight) * Fraction(quantum) / 2
                limit = Fraction(float(getattr(bounds, name)[joint])) * (1 + Fraction(RELATIVE_TOLERANCE))
                counts[name] += abs(value) > limit + slack
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_judge_agrees_with_exact_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([-3 * MS, 0, 2 * MS, 4 * MS, 4 * MS, 4 * MS, 11 * MS], 80)
    stamps = T0_NS + np.concatenate(([0], np.cumsum(steps)))
    positions = rng.normal(0.0, 1e-3, (81, 2)).cumsum(axis=0)
    bounds = limits(2, 5e-3, 0.5, 150.0, 60_000.0)
    report = judge(stamps, positions, bounds, position_quantum_rad=1e-5)
    assert report.violations == exact_twin(stamps, positions, bounds, 1e-5)
    assert min(report.violations.values()) > 0  # Else this would compare nothing.
    assert report.duplicate_stamps == np.count_nonzero(steps == 0)
    assert report.backward_stamps == np.count_nonzero(steps < 0)


def test_rounding_bound_on_even_ticks_is_the_published_one() -> None:
    stamps = ticks(9)
    for order in (1, 2, 3):
        expected = 2.0**order * 1e-6 / (2.0 * 0.004**order)
        np.testing.assert_allclose(rounding_bounds(stamps, 1e-6, order), np.full((9 - order, 1), expected), rtol=1e-9)


def test_rounded_positions_pass_with_their_quantum_and_not_without() -> None:
    stamps = ticks(500)
    positions = np.round(0.3 * np.sin(2.0 * seconds(stamps)), 6)
    bounds = limits(jerk=0.3 * 8.0)
    assert judge(stamps, positions, bounds, position_quantum_rad=1e-6).is_clean
    assert not judge(stamps, positions, bounds, position_quantum_rad=POSITION_QUANTUM_RAD).is_clean


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_position_that_is_no_number_is_past_every_limit(bad: float) -> None:
    positions = np.zeros(10)
    positions[5] = bad
    report = judge(ticks(10), positions)
    assert report.violations == {"position": 1, "velocity": 2, "acceleration": 3, "jerk": 4}
    assert report.peak_velocity_fraction == math.inf


def test_a_limit_of_zero_is_a_limit() -> None:
    bounds = limits(velocity=0.0, acceleration=0.0, jerk=0.0)
    assert judge(ticks(10), np.full(10, 1.5), bounds).is_clean
    assert judge(ticks(10), np.full(10, 1.5), bounds).peak_jerk_fraction == 0.0
    report = judge(ticks(10), 1e-6 * np.arange(10), bounds)
    assert report.violations["velocity"] == 9
    assert report.peak_velocity_fraction == math.inf


def test_duplicates_and_stamps_that_go_back_are_violations_of_their_own() -> None:
    stamps = ticks(8)[[0, 1, 1, 2, 3, 2, 4, 5]]
    report = judge(stamps, np.zeros(8))
    assert (report.duplicate_stamps, report.backward_stamps) == (1, 1)
    assert sum(report.violations.values()) == 0
    assert report.violation_count == 2
    assert not report.is_clean


def test_gaps_are_counted_and_are_no_violation() -> None:
    report = judge(ticks(20)[[*range(8), *range(11, 15), *range(16, 20)]], np.zeros(16))
    assert report.gaps == 2
    assert report.longest_step_s == pytest.approx(0.016)
    assert report.is_clean


def test_each_joint_has_its_own_limits_peaks_and_name() -> None:
    stamps = ticks(50)
    bounds = Limits(("a", "b"), *(np.array(pair) for pair in ([-9, -9], [9, 9], [1.0, 4.0], [9, 9], [9, 9])))
    report = judge(stamps, np.outer(seconds(stamps), [0.5, 8.0]), bounds)
    assert report.peak_velocity_fractions == pytest.approx((0.5, 2.0))
    assert report.peak_velocity_fraction == pytest.approx(2.0)
    assert report.first_violations["velocity"].joint == "b"
    assert report.violations["velocity"] == 49


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_ticks_have_no_peak(count: int) -> None:
    report = judge(ticks(count), np.zeros((count, 2)))
    assert report.ticks == count
    assert report.is_clean
    assert math.isnan(report.peak_jerk_fraction)
    assert math.isnan(report.peak_velocity_fraction) == (count < 2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        judge_limits(ticks(3), np.zeros((3, 1)), limits(2))


def test_mean_derivatives_across_a_stamp_that_goes_back_are_not_numbers() -> None:
    stamps = ticks(5)[[0, 1, 2, 1, 2]]
    is_nan = np.isnan(mean_derivatives(stamps, np.arange(5.0)[:, None], 1))[:, 0]
    assert is_nan.tolist() == [False, False, True, False]


@dataclass(frozen=True)
class LimitsByPosition(Limits):
    """Upwards at most sqrt(2 a way left) with a = 1, downwards at most half of the limit below 0."""

    def velocity_bounds(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        upper = np.minimum(np.sqrt(np.maximum(2.0 * (1.0 - q), 0.0)), self.velocity)
        return np.where(q < 0.0, -0.5, -1.0) * self.velocity, upper


def by_position(velocity: float = 1.0) -> LimitsByPosition:
    return LimitsByPosition(("j0",), *(np.array([value]) for value in (-9.0, 1.0, velocity, 1e9, 1e9)))


def test_braking_along_a_bound_that_depends_on_the_position_keeps_it_and_a_thousandth_more_does_not() -> None:
    """The bound is the speed of an even deceleration, so that motion rides it from end to end."""
    stamps = ticks(240)  # 0.956 s of the 1 s that stopping from 1 rad/s at 1 rad/s^2 takes.
    left_s = 1.0 - seconds(stamps)
    assert judge(stamps, 1.0 - 0.5 * left_s**2, by_position()).is_clean
    faster = judge(stamps, 1.0 - 0.5 * left_s**2 + 0.001 * seconds(stamps), by_position())
    assert faster.violations["velocity"] > 100
    # Without the bound that depends on the position nothing but the first steps would be wrong.
    assert (
        judge(stamps, 1.0 - 0.5 * left_s**2 + 0.001 * seconds(stamps), limits(1, velocity=1.0)).violations["velocity"]
        < 2
    )


def test_each_side_has_its_own_bound_and_the_looser_end_of_a_step_counts() -> None:
    stamps = ticks(4)
    falling = -0.7 * seconds(stamps)
    report = judge(stamps, 0.5 + falling, by_position())
    assert report.is_clean
    assert report.peak_velocity_fraction == pytest.approx(0.7)
    below = judge(stamps, -0.5 + falling, by_position())
    assert below.violations["velocity"] == 3
    assert below.first_violations["velocity"].limit == -0.5
    # The step from 0 to below has a looser end at 0: only those after it are past the tighter bound.
    assert judge(stamps, falling, by_position()).violations["velocity"] == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=240, max_size=240))
def test_losing_ticks_makes_no_violation_of_a_bound_that_depends_on_the_position(kept: list[bool]) -> None:
    stamps, keep = ticks(240), np.array(kept)
    positions = 1.0 - 0.5 * (1.0 - seconds(stamps)) ** 2
    assert judge(stamps[keep], positions[keep], by_position()).is_clean


def test_a_position_that_is_no_number_is_past_bounds_that_depend_on_it() -> None:
    positions = np.zeros(10)
    positions[5] = math.nan
    assert judge(ticks(10), positions, by_position()).violations["velocity"] == 2


def test_one_tick_or_none_has_no_bound_to_keep() -> None:
    for count in (0, 1):
        assert judge(ticks(count), np.zeros(count), by_position()).is_clean
