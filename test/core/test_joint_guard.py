"""The joint guard's promise, judged from positions alone by divided differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.bounds import guard_limits
from vla_ros.control.config import ControllerConfig
from vla_ros.control.guard import JointGuard, at_rest
from vla_ros.control.stopping import GuardLimits, can_stop
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

DT_S = 0.004
LIMITS = GuardLimits(
    lower=np.array([-1.0, -0.5, -2.0]),
    upper=np.array([1.0, 0.8, 2.0]),
    velocity=np.array([2.0, 1.0, 0.5]),
    acceleration=np.array([10.0, 15.0, 2.0]),
    jerk=np.array([5000.0, 500.0, 40.0]),
)


def exceedances(positions: np.ndarray, limits: GuardLimits, dt_s: float) -> list[str]:
    """What a judge that sees positions at exact ticks finds: past limit (1 + 1e-4) + 2^m delta / (2 h^m)."""
    found = []
    orders = (("velocity", limits.velocity), ("acceleration", limits.acceleration), ("jerk", limits.jerk))
    for order, (name, limit) in enumerate(orders, start=1):
        derivative = np.abs(np.diff(positions, order, axis=0)) / dt_s**order
        allowed = limit * (1 + 1e-4) + 2**order * 1e-12 / (2 * dt_s**order)
        if np.any(derivative > allowed):
            found.append(f"{name} {np.max(derivative / np.maximum(limit, 1e-9)):.6f} of its limit")
    if np.any(positions < limits.lower - 1e-8) or np.any(positions > limits.upper + 1e-8):
        found.append(f"position [{positions.min(axis=0)}, {positions.max(axis=0)}]")
    return found


def run(wanted: np.ndarray, limits: GuardLimits = LIMITS, dt_s: float = DT_S) -> tuple[np.ndarray, np.ndarray]:
    guard, motion = JointGuard(limits, dt_s), at_rest(np.zeros(len(limits.lower)))
    commands, untouched = [motion.positions] * 3, []
    for positions in wanted:
        motion, is_untouched = guard.step(motion, positions)
        commands.append(motion.positions)
        untouched.append(is_untouched)
    return np.array(commands), np.array(untouched)


def test_judge_of_this_file_sees_each_kind_of_exceedance() -> None:
    t = DT_S * np.arange(200)[:, None]
    one = np.ones((1, 3))
    assert exceedances(2.5 * t * one, LIMITS, DT_S)
    assert exceedances(np.where(t > 0.4, 0.2 * (t - 0.4), 0.0) * one, LIMITS, DT_S)
    assert exceedances(np.full((5, 3), 1.1), LIMITS, DT_S)
    assert not exceedances(0.1 * np.sin(t) * one, LIMITS, DT_S)


@pytest.mark.parametrize("dt_s", [0.002, 0.004])
@pytest.mark.parametrize("seed", range(2))
def test_adversarial_targets_never_exceed_a_limit(seed: int, dt_s: float) -> None:
    rng = np.random.default_rng(seed)
    wanted, last = [], np.zeros(3)
    for _ in range(120):
        length, kind = int(rng.integers(1, 120)), rng.integers(5)
        t = dt_s * np.arange(1, length + 1)[:, None]
        if kind == 0:
            piece = np.tile(rng.uniform(-3, 3, 3), (length, 1))
        elif kind == 1:
            phase = rng.uniform(0, 6, 3)
            piece = last + rng.uniform(0, 0.5) * (np.sin(rng.uniform(0.5, 60) * t + phase) - np.sin(phase))
        elif kind == 2:
            piece = last + np.cumsum(rng.normal(0, 0.01, (length, 3)), axis=0)
        elif kind == 3:
            piece = rng.uniform(-1e6, 1e6, (length, 3))
        else:
            piece = last + rng.uniform(-2.5, 2.5, 3) * t
        wanted.append(piece)
        last = piece[-1]
    commands, _ = run(np.concatenate(wanted), dt_s=dt_s)
    assert exceedances(commands, LIMITS, dt_s) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=80), st.integers(1, 40))
def test_any_targets_keep_the_limits(targets: list[list[float]], hold: int) -> None:
    commands, _ = run(np.repeat(np.array(targets), hold, axis=0))
    assert exceedances(commands, LIMITS, DT_S) == []


def test_feasible_motion_passes_untouched() -> None:
    t = DT_S * np.arange(2000)[:, None]
    wanted = 0.1 * np.sin(t * np.array([1.0, 2.0, 0.7])) * (1 - np.exp(-(t**3)))
    commands, untouched = run(wanted)
    assert untouched.all()
    np.testing.assert_array_equal(commands[3:], wanted)


def test_far_target_is_reached_and_held() -> None:
    commands, _ = run(np.tile([0.9, -0.4, 0.3], (1500, 1)))
    np.testing.assert_allclose(commands[-1], [0.9, -0.4, 0.3], atol=1e-9)


def test_target_out_of_reach_ends_at_the_limit() -> None:
    commands, _ = run(np.tile([5.0, -5.0, 5.0], (3000, 1)))
    np.testing.assert_allclose(commands[-1], [1.0, -0.5, 2.0], atol=1e-6)


def test_reference_that_was_lost_is_caught_up_with() -> None:
    # A jump of the wanted motion by 0.2 rad, then motion that is feasible again.
    t = DT_S * np.arange(1500)[:, None]
    wanted = 0.2 * np.sin(t * np.array([1.0, 1.0, 0.5])) * (1 - np.exp(-(t**3))) + np.where(t > 2.0, 0.2, 0.0)
    commands, untouched = run(wanted)
    assert not untouched[501:510].any()
    assert untouched[-500:].all()
    assert exceedances(commands, LIMITS, DT_S) == []


@pytest.mark.parametrize("size", [1e-7, 1e-5, 1e-3, 0.03, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_gap_closes_and_stays_closed(size: float, seed: int) -> None:
    """However the wanted motion was jerked about, once it rests the joints come to rest on it and swing no more."""
    rng = np.random.default_rng(seed)
    jerked = np.cumsum(rng.normal(0.0, size, (40, 3)), axis=0)
    wanted = np.vstack([jerked, np.tile(np.clip(jerked[-1], -0.4, 0.4), (2000, 1))])
    commands, untouched = run(wanted)
    assert untouched[-200:].all()
    np.testing.assert_allclose(commands[-1], wanted[-1], atol=1e-12)
    assert exceedances(commands, LIMITS, DT_S) == []


@pytest.mark.parametrize("zero", ["velocity", "acceleration", "jerk"])
def test_joint_with_a_limit_of_zero_stands_still(zero: str) -> None:
    values = {name: getattr(LIMITS, name).copy() for name in ("lower", "upper", "velocity", "acceleration", "jerk")}
    values[zero][1] = 0.0
    commands, _ = run(np.tile([0.5, 0.5, 0.1], (500, 1)), GuardLimits(**values))
    assert np.all(commands[:, 1] == 0.0)
    np.testing.assert_allclose(commands[-1, 0], 0.5, atol=1e-9)


@pytest.mark.parametrize("start", [[1.2, 0.0, 0.0], [-1.3, 0.9, 2.4]])
def test_joint_outside_its_limits_comes_back_slowly_and_stays(start: list[float]) -> None:
    guard, motion = JointGuard(LIMITS, DT_S), at_rest(np.array(start))
    path = []
    for _ in range(2500):
        motion, _ = guard.step(motion, np.zeros(3))
        path.append(motion.positions)
    track = np.array(path)
    is_out = (track < LIMITS.lower - 1e-6) | (track > LIMITS.upper + 1e-6)
    speed = np.abs(np.diff(track, axis=0)) / DT_S
    assert np.all(speed[is_out[1:]] <= 0.1 + 1e-6)
    assert not is_out[-1].any()
    np.testing.assert_allclose(track[-1], 0.0, atol=1e-6)


def test_state_that_can_stop_stops_inside() -> None:
    """The bound against a simulated brake at full jerk, tick by tick far finer than the guard's."""
    rng = np.random.default_rng(0)
    one = GuardLimits(*(np.array([value]) for value in (-1.0, 1.0, 2.0, 10.0, 200.0)))
    margins = []
    for _ in range(600):
        q, v, a = rng.uniform(-0.99, 0.99), rng.uniform(-2, 2), rng.uniform(-10, 10)
        if not can_stop(np.array([q]), np.array([v]), np.array([a]), one)[0]:
            continue
        guard, motion = JointGuard(one, 1e-3), at_rest(np.array([q]))
        motion = motion._replace(velocities=[v], accelerations=[a])
        for _ in range(300):
            motion = guard.brake(motion)
            margins.append(1.0 - abs(float(motion.positions[0])))
    assert len(margins) > 10_000
    assert min(margins) > -1e-6
    assert min(margins) < 0.01  # the bound isn't merely generous


@pytest.mark.parametrize("seed", range(4))
def test_velocity_limits_that_shrink_towards_the_ends_are_kept(seed: int) -> None:
    """FR3: judged by its own curves at the positions themselves, as in its data sheet, with jumps as targets."""
    model = RobotModel.from_config(load_robot("fr3"))
    guard = JointGuard(guard_limits(model, ControllerConfig()), DT_S)
    rng = np.random.default_rng(seed)
    motion, positions = at_rest(model.home), [model.home] * 3
    for _ in range(60):
        wanted = rng.uniform(model.lower - 0.3, model.upper + 0.3)
        for _ in range(rng.integers(5, 200)):
            motion, _ = guard.step(motion, wanted)
            positions.append(motion.positions)
    track = np.array(positions)
    lower, upper = model.velocity_bounds(track)
    velocity = np.diff(track, axis=0) / DT_S
    # A mean over a tick lies between the velocities in it, so it is within the wider bound of its two ends.
    assert np.all(velocity <= np.maximum(upper[1:], upper[:-1]) + 1e-9)
    assert np.all(velocity >= np.minimum(lower[1:], lower[:-1]) - 1e-9)
    assert np.all(np.max(velocity / np.maximum(upper[1:], upper[:-1]), axis=0) > 0.8)  # They aren't shunned either.


def test_states_that_take_the_short_way_are_those_that_the_exact_one_grants() -> None:
    rng = np.random.default_rng(3)
    guard, motion = JointGuard(LIMITS, DT_S), at_rest(np.zeros(3))
    short = 0
    for tick in range(3000):
        t = DT_S * tick
        wanted = np.array([0.9, 0.4, 1.5]) * np.sin([1.1 * t, 1.7 * t, 0.2 * t]) * (1.0 - np.exp(-t))
        wanted = wanted + (rng.normal(0, 1e-3, 3) if tick % 40 == 0 else 0.0)
        granted = guard.granted(motion, wanted.tolist())
        exact, is_untouched = guard.step_exactly(motion, wanted)
        if granted is not None:
            short += 1
            assert is_untouched
            np.testing.assert_allclose(granted.velocities, exact.velocities, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(granted.accelerations, exact.accelerations, rtol=1e-6, atol=1e-6)
        motion = granted or exact
    assert 1000 < short < 3000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_granted(bad: float) -> None:
    assert JointGuard(LIMITS, DT_S).granted(at_rest(np.zeros(3)), [0.0, bad, 0.0]) is None
