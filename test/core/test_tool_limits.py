"""Box, rate and stopping room of the tool, judged by differences of the poses alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.geometry import se3
from vla_ros.safety.limits import StoppingRoom, ToolMotion, ToolRate, WorkspaceBox, at_rest
from vla_ros.types import FloatArray, Intervention

DT_S = 0.004
VELOCITY = (0.5, 1.5)
ACCELERATION = (2.0, 6.0)
RATE = ToolRate(VELOCITY, ACCELERATION)
BOX = WorkspaceBox(np.array([-0.3, -0.2, 0.0]), np.array([0.3, 0.2, 0.5]))
DOWN = Rotation.from_euler("x", 180, degrees=True).as_matrix()


def twists(poses: FloatArray, dt_s: float = DT_S) -> FloatArray:
    """(n - 1, 6) from (n, 4, 4), with scipy's rotations."""
    turns = Rotation.from_matrix(poses[1:, :3, :3]) * Rotation.from_matrix(poses[:-1, :3, :3]).inv()
    return np.hstack([np.diff(poses[:, :3, 3], axis=0), turns.as_rotvec()]) / dt_s


def norms(values: FloatArray) -> FloatArray:
    """(n, 2) lengths of the linear and the angular part."""
    return np.linalg.norm(values.reshape(-1, 2, 3), axis=2)


def exceedances(poses: FloatArray, dt_s: float = DT_S) -> list[str]:
    """Speeds and accelerations past the limits, starting from rest; rounding of poses is 1e-15."""
    v = twists(np.concatenate([poses[:1], poses]), dt_s)
    found = []
    for name, values, limits in (("v", norms(v), VELOCITY), ("a", norms(np.diff(v, axis=0) / dt_s), ACCELERATION)):
        allowed = np.array(limits) + 1e-13 / dt_s ** (1 if name == "v" else 2)
        if np.any(values > allowed):
            found.append(f"{name} {values.max(axis=0)} past {limits}")
    return found


def follow(
    wanted: list[ToolMotion], start: ToolMotion, has_box: bool = False, dt_s: float = DT_S, scale: float = 1.0
) -> tuple[FloatArray, list[Intervention | None]]:
    limits = (BOX, RATE, StoppingRoom(BOX, RATE)) if has_box else (RATE,)
    motion, poses, acted = start, [start.T_base_tcp], []
    for item in wanted:
        last, names = motion, []
        motion = item
        for limit in limits:
            motion, intervention = limit.apply(motion, last, dt_s, scale)
            names.append(intervention)
        poses.append(motion.T_base_tcp)
        acted.append(next((name for name in names if name is not None), None))
    return np.array(poses), acted


def at(x: float, y: float = 0.0, z: float = 0.25, v: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> ToolMotion:
    return ToolMotion(se3.make_pose(np.array([x, y, z]), DOWN), np.array([*v, 0.0, 0.0, 0.0]), np.zeros(6))


def random_motion(rng: np.random.Generator, count: int, reach_m: float) -> list[ToolMotion]:
    """What no policy would say: jumps, half turns, jitter and lies about the velocity, a stretch of each at a time."""
    wanted: list[ToolMotion] = []
    p, R = np.array([0.0, 0.0, 0.25]), DOWN
    while len(wanted) < count:
        length, kind = int(rng.integers(1, 60)), rng.integers(4)
        drift, turn = rng.normal(0, 0.003, 3), Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        for _ in range(length):
            if kind == 0:
                p, R = p + drift, turn @ R
            elif kind == 1:
                p, R = rng.uniform(-reach_m, reach_m, 3), Rotation.random(random_state=rng).as_matrix()
            elif kind == 2 and rng.random() < 0.2:
                R = Rotation.from_rotvec(np.pi * np.eye(3)[rng.integers(3)]).as_matrix() @ R
            twist = rng.normal(0, 10.0 ** rng.uniform(-3, 3), 6)
            wanted.append(ToolMotion(se3.make_pose(p, R), twist, np.zeros(6)))
    return wanted[:count]


def test_judge_of_this_file_sees_each_kind_of_exceedance() -> None:
    t = DT_S * np.arange(300)
    fast = se3.make_pose(np.outer(0.25 * t**2, [1, 0, 0]), DOWN)
    assert exceedances(fast)
    sharp = se3.make_pose(np.outer(np.where(t > 0.5, 0.1 * (t - 0.5), 0.0), [1, 0, 0]), DOWN)
    assert exceedances(sharp)
    spin = se3.make_pose(np.zeros((300, 3)), Rotation.from_rotvec(np.outer(0.8 * t**2, [0, 0, 1])).as_matrix())
    assert exceedances(spin)
    assert not exceedances(se3.make_pose(np.outer(0.1 * t**2, [1, 0, 0]), DOWN))


def test_feasible_motion_passes_bit_for_bit() -> None:
    t = DT_S * np.arange(1, 2000)[:, None]
    p = np.array([0.0, 0.0, 0.25]) + (1 - np.cos(2.0 * t)) * np.array([0.1, -0.05, 0.08])
    R = Rotation.from_rotvec((1 - np.cos(1.5 * t)) * np.array([0.3, 0.0, -0.4])).as_matrix() @ DOWN
    wanted = [ToolMotion(T, np.zeros(6), np.zeros(6)) for T in se3.make_pose(p, R)]
    poses, acted = follow(wanted, at(0.0), has_box=True)
    assert acted == [None] * len(wanted)
    np.testing.assert_array_equal(poses[1:], [item.T_base_tcp for item in wanted])


@pytest.mark.parametrize("dt_s", [0.002, 0.004, 0.01])
@pytest.mark.parametrize("seed", range(3))
def test_rate_keeps_speed_and_acceleration_whatever_is_wanted(seed: int, dt_s: float) -> None:
    wanted = random_motion(np.random.default_rng(seed), 2000, reach_m=1e3)
    poses, _ = follow(wanted, at(0.0), dt_s=dt_s)
    assert exceedances(poses, dt_s) == []
    assert se3.is_pose(poses, tolerance=1e-9)


def test_scale_takes_speed_and_acceleration_down_together() -> None:
    poses, acted = follow([at(1.0)] * 1000, at(0.0), scale=0.2)
    v = twists(poses)
    assert norms(v)[:, 0].max() == pytest.approx(0.2 * VELOCITY[0], rel=1e-9)
    assert norms(np.diff(v, axis=0) / DT_S)[:, 0].max() <= 0.2 * ACCELERATION[0] * (1 + 1e-9)
    assert acted[0] is not None
    assert acted[0].limit == "tool_rate"


@pytest.mark.parametrize("distance_m", [0.001, 0.01, 0.05, 0.2, 0.6])
def test_step_is_caught_up_with_soon_and_hardly_overshot(distance_m: float) -> None:
    poses, acted = follow([at(distance_m)] * 800, at(0.0))
    x = poses[:, 0, 3]
    # One tick of braking is what discrete time can't see.
    assert x.max() - distance_m <= ACCELERATION[0] * DT_S**2
    # Speed sqrt(a d), half the acceleration, once the top speed is left; then 1/e in 60 ms down to a hundredth of a mm.
    top, a = VELOCITY[0], ACCELERATION[0]
    bound_s = distance_m / top + 1.5 * top / a + 0.06 * np.log(distance_m / 1e-5)
    arrived = np.flatnonzero(np.abs(x - distance_m) > 1e-5)[-1] + 1
    assert arrived * DT_S <= bound_s
    np.testing.assert_array_equal(poses[-1], at(distance_m).T_base_tcp)
    assert acted[-1] is None


def test_half_turn_is_caught_up_with_and_hardly_overshot() -> None:
    start = ToolMotion(np.eye(4), np.zeros(6), np.zeros(6))
    R = Rotation.from_rotvec([0.0, 0.0, np.pi - 1e-3]).as_matrix()
    poses, _ = follow([at_rest(se3.make_pose(np.zeros(3), R))] * 900, start)
    yaw = np.unwrap(Rotation.from_matrix(poses[:, :3, :3]).as_euler("zyx")[:, 0])
    assert yaw.max() - (np.pi - 1e-3) <= ACCELERATION[1] * DT_S**2
    assert yaw[-1] == pytest.approx(np.pi - 1e-3, abs=1e-9)


def test_moving_target_is_met_after_a_jump_and_then_passes_untouched() -> None:
    """Not a tick ahead of it or behind, which would look the same in a plot."""
    t = DT_S * np.arange(1, 1000)
    wanted = [at(0.3 * time + 0.1, v=(0.3, 0.0, 0.0)) for time in t]
    poses, acted = follow(wanted, at(0.0))
    assert acted[0] is not None
    assert acted[-300:] == [None] * 300
    np.testing.assert_array_equal(poses[-300:], [item.T_base_tcp for item in wanted[-300:]])
    ahead = poses[1:, 0, 3] - np.array([item.T_base_tcp[0, 3] for item in wanted])
    assert ahead.max() <= ACCELERATION[0] * DT_S**2


@pytest.mark.parametrize("speed", [0.05, 0.3, 0.5])
def test_brake_comes_to_rest_straight_ahead_in_v_over_a(speed: float) -> None:
    direction = np.array([2.0, -1.0, 0.5]) / np.linalg.norm([2.0, -1.0, 0.5])
    twist = np.concatenate([speed * direction, [0.0, 3.0 * speed, 0.0]])
    motion = ToolMotion(at(0.0).T_base_tcp, twist, np.zeros(6))
    poses = [motion.T_base_tcp]
    for _ in range(200):
        motion = RATE.brake(motion, DT_S)
        poses.append(motion.T_base_tcp)
    v = twists(np.array(poses))
    ticks_to_rest = np.flatnonzero(norms(v).max(axis=1) > 1e-9)[-1] + 1
    assert ticks_to_rest <= np.ceil(speed / ACCELERATION[0] / DT_S)
    moved = poses[-1][:3, 3] - poses[0][:3, 3]
    assert np.linalg.norm(np.cross(moved, direction)) < 1e-12
    # By hand: v^2 / 2a, less at most the way of one tick.
    assert speed**2 / (2 * ACCELERATION[0]) - speed * DT_S <= moved @ direction <= speed**2 / (2 * ACCELERATION[0])
    assert norms(np.diff(v, axis=0) / DT_S).max(axis=0)[1] <= ACCELERATION[1] * (1 + 1e-9)


@pytest.mark.parametrize("still", ["velocity", "acceleration"])
def test_limit_of_zero_is_a_limit(still: str) -> None:
    rate = ToolRate((0.0, 0.0), ACCELERATION) if still == "velocity" else ToolRate(VELOCITY, (0.0, 0.0))
    room, motion = StoppingRoom(BOX, rate), at(0.0)
    with np.errstate(all="raise"):
        for item in random_motion(np.random.default_rng(0), 200, reach_m=1.0):
            limited, _ = rate.apply(item, motion, DT_S, 1.0)
            motion, _ = room.apply(limited, motion, DT_S, 1.0)
            motion = rate.brake(motion, DT_S)
    np.testing.assert_allclose(motion.T_base_tcp, at(0.0).T_base_tcp, atol=1e-12)


def test_box_clamps_the_position_and_names_the_axis() -> None:
    motion, intervention = BOX.apply(at(0.1, 0.7, v=(0.2, 0.3, 0.1)), at(0.0), DT_S, 1.0)
    np.testing.assert_array_equal(motion.T_base_tcp, at(0.1, 0.2).T_base_tcp)
    np.testing.assert_array_equal(motion.twist[:3], [0.2, 0.0, 0.1])
    assert intervention is not None
    assert intervention.limit == "workspace"
    assert "y = 0.700 m" in intervention.reason
    for inside in (at(0.1, 0.2), at(-0.3, -0.2, 0.0), at(0.3, 0.2, 0.5)):
        assert BOX.apply(inside, at(0.0), DT_S, 1.0) == (inside, None)


@pytest.mark.parametrize("reach_m", [0.35, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_tool_stays_in_the_box_and_keeps_its_rate_whatever_is_wanted(seed: int, reach_m: float) -> None:
    wanted = random_motion(np.random.default_rng(seed), 3000, reach_m)
    poses, _ = follow(wanted, at(0.0), has_box=True)
    assert exceedances(poses) == []
    p = poses[:, :3, 3]
    assert np.all(p >= BOX.lower_m - 1e-9)
    assert np.all(p <= BOX.upper_m + 1e-9)
    # The test isn't about the middle of the box.
    assert np.any(np.minimum(p - BOX.lower_m, BOX.upper_m - p) < 1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_braking_at_any_moment_ends_inside_the_box(seed: int) -> None:
    rng = np.random.default_rng(10 + seed)
    room, motion = StoppingRoom(BOX, RATE), at(0.0)
    for index, item in enumerate(random_motion(rng, 1500, reach_m=0.5)):
        limited, _ = RATE.apply(BOX.apply(item, motion, DT_S, 1.0)[0], motion, DT_S, 1.0)
        motion, _ = room.apply(limited, motion, DT_S, 1.0)
        if index % 7:
            continue
        braked = motion
        while np.linalg.norm(braked.twist[:3]) > 0.0:
            braked = RATE.brake(braked, DT_S)
        assert np.all(braked.T_base_tcp[:3, 3] >= BOX.lower_m - 1e-9)
        assert np.all(braked.T_base_tcp[:3, 3] <= BOX.upper_m + 1e-9)


def test_motion_into_a_wall_ends_on_it_and_names_it() -> None:
    wanted = [at(0.4 * time, v=(0.4, 0.0, 0.0)) for time in DT_S * np.arange(1, 500)]
    poses, acted = follow(wanted, at(0.0), has_box=True)
    assert poses[:, 0, 3].max() == pytest.approx(0.3, abs=1e-9)
    assert poses[-1, 0, 3] == pytest.approx(0.3, abs=1e-6)
    assert {item.limit for item in acted if item is not None} >= {"workspace"}


def test_motion_along_a_wall_and_against_it_goes_on_along_it() -> None:
    """Up to the wall at an angle and on along it; the corner at its end stops it."""
    t = DT_S * np.arange(1, 800)
    poses, _ = follow([at(0.3 * s, 0.2 * s - 0.19, v=(0.3, 0.2, 0.0)) for s in t], at(0.0, -0.19), has_box=True)
    x, y = poses[1:, 0, 3], poses[1:, 1, 3]
    is_sliding = (x > 0.299) & (t < 1.7)
    assert np.count_nonzero(is_sliding) > 100
    assert np.max(np.abs(0.2 * t - 0.19 - y)[is_sliding]) < 0.01
    np.testing.assert_allclose(poses[-1, :3, 3], [0.3, 0.2, 0.25], atol=1e-6)


def test_tool_that_starts_outside_comes_back_in_and_no_further_out() -> None:
    poses, _ = follow([at(-0.5, 0.1)] * 50 + [at(0.1)] * 600, at(0.45, -0.3), has_box=True)
    excess = np.maximum(np.maximum(poses[:, :3, 3] - BOX.upper_m, BOX.lower_m - poses[:, :3, 3]), 0.0)
    assert np.all(np.diff(excess, axis=0) <= 1e-9)
    np.testing.assert_allclose(poses[-1], at(0.1).T_base_tcp, atol=1e-9)
    assert all(np.all(np.isfinite(b - a)) for a, b in pairwise(poses))
