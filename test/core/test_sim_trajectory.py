"""The simulated arm behind every command interface: it does what the controllers of real ones do."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from scipy.interpolate import BPoly

from vla_ros.contract import load_rig
from vla_ros.errors import ConfigError, LimitExceededError
from vla_ros.geometry.se3 import pose_error
from vla_ros.robots.config import load_robot
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.sim.trajectory import DesiredState, TrajectoryFollower
from vla_ros.sim.world import World
from vla_ros.types import FloatArray

pytestmark = pytest.mark.sim

TIMES_S = [0.1, 0.25, 0.3, 0.7]


def make_points(rng: np.random.Generator, orders: int) -> list[FloatArray]:
    """Positions, velocities, accelerations, as many as asked for, of four points of three joints; it ends at rest."""
    points = [rng.normal(size=(4, 3)) for _ in range(orders)]
    for derivative in points[1:]:
        derivative[-1] = 0.0
    return points


def follow(follower: TrajectoryFollower, points: list[FloatArray], now_s: float, times_s: list[float]) -> float:
    return follower.replace(now_s, times_s, DesiredState(*points))


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_points_are_joined_by_the_polynomial_of_what_they_give(orders: int) -> None:
    points = make_points(np.random.default_rng(orders), orders)
    follower = TrajectoryFollower(points[0][0])
    follow(follower, points, TIMES_S[0], TIMES_S)
    expected = BPoly.from_derivatives(TIMES_S, np.stack(points, axis=1))
    for time_s in np.linspace(0.1, 0.6999, 200):
        state = follower.sample(time_s)
        np.testing.assert_allclose(state.positions, expected(time_s), atol=1e-9)
        np.testing.assert_allclose(state.velocities, expected.derivative()(time_s), atol=1e-8)
        np.testing.assert_allclose(state.accelerations, expected.derivative(2)(time_s), atol=1e-6)


def test_points_that_have_passed_are_skipped_and_the_last_is_held_at_rest() -> None:
    points = make_points(np.random.default_rng(0), 3)
    whole, late = TrajectoryFollower(points[0][0]), TrajectoryFollower(points[0][0])
    follow(whole, points, 0.1, TIMES_S)
    jump_rad = follow(late, points, 0.4, TIMES_S)
    np.testing.assert_array_equal(late.sample(0.5).positions, whole.sample(0.5).positions)
    # It says by how much it had to jump for that.
    assert jump_rad == pytest.approx(np.abs(whole.sample(0.4).positions - points[0][0]).max())
    held = late.sample(2.0)
    np.testing.assert_array_equal(held.positions, points[0][-1])
    assert not held.velocities.any()


def test_new_trajectory_begins_from_the_state_desired_at_its_arrival() -> None:
    rng = np.random.default_rng(1)
    first, second = make_points(rng, 3), make_points(rng, 3)
    follower = TrajectoryFollower(first[0][0])
    follow(follower, first, 0.1, TIMES_S)
    before = follower.sample(0.42)
    assert follow(follower, second, 0.42, [0.5, 0.6, 0.7, 0.8]) == pytest.approx(0.0, abs=1e-12)
    states = [[before.positions, before.velocities, before.accelerations], [row[0] for row in second]]
    expected = BPoly.from_derivatives([0.42, 0.5], states)
    for time_s in (0.42, 0.45, 0.49):
        np.testing.assert_allclose(follower.sample(time_s).positions, expected(time_s), atol=1e-9)


def test_trajectory_without_points_holds() -> None:
    points = make_points(np.random.default_rng(2), 3)
    follower = TrajectoryFollower(points[0][0])
    follow(follower, points, 0.1, TIMES_S)
    here = follower.sample(0.2).positions
    follower.replace(0.2, [], DesiredState(np.zeros((0, 3))))
    np.testing.assert_array_equal(follower.sample(0.5).positions, here)


@pytest.mark.parametrize(
    ("times_s", "spoil", "text"),
    [
        ([0.1, 0.1, 0.3, 0.7], lambda _: None, "don't increase"),
        (TIMES_S, lambda points: points[1][-1].fill(0.1), "ends in motion"),
        (TIMES_S, lambda points: points[2][1].fill(np.nan), "aren't all finite"),
        ([-0.4, -0.3, -0.2, -0.1], lambda _: None, "was due 0.100 s ago"),
        (TIMES_S[:3], lambda _: None, "give 3 points of all joints"),
    ],
)
def test_trajectory_that_cannot_be_followed_is_refused_and_the_old_one_goes_on(times_s, spoil, text) -> None:
    points = make_points(np.random.default_rng(3), 3)
    follower = TrajectoryFollower(np.ones(3))
    spoil(points)
    with pytest.raises(ConfigError, match=text):
        follow(follower, points, 0.0, times_s)
    np.testing.assert_array_equal(follower.sample(0.5).positions, np.ones(3))


# In the simulator


@pytest.fixture(scope="module")
def built() -> World:
    return World(load_robot("panda"), load_rig("panda_table"), 0)


@pytest.fixture
def world(built: World) -> World:
    built.reset(0)
    return built


def home(world: World) -> FloatArray:
    return np.array([joint.home_rad for joint in world.scene.robot.joints])


def test_arm_follows_a_trajectory_without_lag(world: World) -> None:
    # A rest to rest quintic of half a radian in a second, as one segment.
    start = home(world)
    goal = start + np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5])
    still = np.zeros((2, 7))
    world.set_joint_trajectory([world.time_s, world.time_s + 1.0], DesiredState(np.array([start, goal]), still, still))
    for tick in range(1, 60):
        world.step(10)
        share = min(1.0, 0.02 * tick)
        expected = start + (10 * share**3 - 15 * share**4 + 6 * share**5) * (goal - start)
        # A millisecond at 0.9 rad/s, and what gravity compensation leaves.
        np.testing.assert_allclose(world.robot_state(0).positions, expected, atol=2e-3)


def test_velocity_is_carried_out_until_the_watchdog_stops_it(world: World) -> None:
    velocities = np.array([0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    for _ in range(50):
        world.set_joint_velocities(velocities, 0.1)
        world.step(10)
    state = world.robot_state(0)
    assert state.velocities[0] == pytest.approx(0.3, abs=0.01)
    assert state.positions[0] - home(world)[0] == pytest.approx(0.3, abs=0.02)
    world.step(100)
    assert np.abs(world.robot_state(0).velocities).max() < 0.01
    assert world.robot_state(0).positions[0] - state.positions[0] == pytest.approx(0.03, abs=0.01)


def test_velocity_without_a_watchdog_runs_on(world: World) -> None:
    world.set_joint_velocities(np.array([0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), None)
    world.step(1000)
    assert world.robot_state(0).velocities[0] == pytest.approx(0.3, abs=0.01)


def test_velocity_past_a_limit_is_refused(world: World) -> None:
    with pytest.raises(LimitExceededError, match="panda_joint1"):
        world.set_joint_velocities(np.array([2.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0.1)


def test_tool_goes_to_the_pose_that_it_is_commanded(world: World) -> None:
    T = world.tcp_pose().copy()
    T[:3, 3] += [0.02, -0.03, 0.04]
    world.set_tool_command(T)
    world.step(1000)
    np.testing.assert_allclose(world.tcp_pose(), T, atol=2e-3)
    # Another kind of command takes over.
    world.set_joint_command(home(world))
    world.step(1000)
    np.testing.assert_allclose(world.robot_state(0).positions, home(world), atol=5e-3)


def test_tool_command_that_is_no_pose_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="is no pose"):
        world.set_tool_command(np.full((4, 4), np.nan))


def test_tool_moves_with_the_twist_in_base_axes_that_it_is_told_and_stands_when_twists_end(world: World) -> None:
    before = world.tcp_pose().copy()
    twist = np.array([0.05, -0.04, 0.03, 0.0, 0.0, 0.2])
    for _ in range(100):
        world.set_tool_twist(twist, 0.1)
        world.step(5)
    moved_s = 100 * 5 * TIMESTEP_S
    world.step(1000)
    moved = pose_error(before, world.tcp_pose())
    # It goes on for the 0.1 s until it is told nothing any more.
    np.testing.assert_allclose(moved, twist * (moved_s + 0.1), atol=3e-3)
    stands = world.tcp_pose().copy()
    world.step(500)
    np.testing.assert_allclose(world.tcp_pose(), stands, atol=1e-4)


@pytest.mark.parametrize("twist", [np.full(6, np.nan), np.zeros(5)])
def test_twist_that_is_none_is_refused(world: World, twist: FloatArray) -> None:
    with pytest.raises(ConfigError, match="is no twist"):
        world.set_tool_twist(twist, 0.1)
