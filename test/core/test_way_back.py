"""Singular postures: what can be reached is reached, what can't is left in peace, and the way back is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.control.config import ControllerConfig
from vla_ros.control.way_back import WayBack
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.geometry import se3
from vla_ros.robots.config import ToolLimits, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, ToolTarget

ARMS = ("panda", "ur5e", "fr3", "ur10e")
DT_S = 0.004
# A tool that nothing holds back.
FAST = ToolLimits(*[1e9] * 6)


def make(robot: str, dt_s: float = DT_S) -> CartesianController:
    return CartesianController(RobotModel.from_config(load_robot(robot)), ControllerConfig(rate_hz=1.0 / dt_s))


def follow(
    controller: CartesianController, q: FloatArray, pose_at: Callable[[float], FloatArray], s: float
) -> FloatArray:
    """(n, joints) commands along a path of poses, with the twists that it has."""
    state, positions, before = controller.init(q), [], pose_at(0.0)
    for tick in range(1, round(s / controller.dt_s) + 1):
        T = pose_at(tick * controller.dt_s)
        turn = Rotation.from_matrix(T[:3, :3] @ before[:3, :3].T).as_rotvec()
        twist = np.concatenate([T[:3, 3] - before[:3, 3], turn]) / controller.dt_s
        state, command, _ = controller.step(state, ToolTarget(tick, T, twist), controller.dt_s)
        positions.append(command.positions)
        before = T
    return np.array(positions)


def violations(controller: CartesianController, start: FloatArray, positions: FloatArray) -> list[str]:
    track = np.vstack([np.tile(start, (4, 1)), positions])
    stamps_ns = np.arange(len(track)) * round(1e9 * controller.dt_s)
    return [str(found) for found in judge_limits(stamps_ns, track, controller.model).first_violations.values()]


def error(model: RobotModel, q: FloatArray, T: FloatArray) -> float:
    """m and rad together, as the singular vector has them."""
    return float(np.linalg.norm(se3.pose_error(model.forward_kinematics(q), T)))


def led(T: FloatArray, twist: FloatArray) -> Callable[[float], FloatArray]:
    """A pose led along a twist for a second, and then left where it is."""

    def pose_at(time_s: float) -> FloatArray:
        t = min(1.0, time_s)
        return se3.make_pose(T[:3, 3] + t * twist[:3], Rotation.from_rotvec(t * twist[3:]).as_matrix() @ T[:3, :3])

    return pose_at


def elbow(model: RobotModel) -> FloatArray:
    q = model.home.copy()
    q[2] = 0.0
    return q


def wrist(model: RobotModel) -> FloatArray:
    q = model.home.copy()
    q[4] = 0.0
    return q


@pytest.mark.parametrize("robot", ["ur5e", "ur10e"])
def test_stretched_elbow_bends_where_that_helps_and_rests_where_nothing_does(robot: str) -> None:
    controller = make(robot)
    model, q = controller.model, elbow(controller.model)
    left, sigma, _ = np.linalg.svd(model.jacobian(q))
    assert sigma[-1] < 1e-9
    T = model.forward_kinematics(q)
    outward = left[:, -1] * np.sign(left[:3, -1] @ (T[:3, 3] - model.link_pose(q, "upper_arm_link")[:3, 3]))
    inside = follow(controller, q, led(T, -0.1 * outward), 1.5)
    assert error(model, inside[249], led(T, -0.1 * outward)(1.0)) < 2e-3
    outside = follow(controller, q, led(T, 0.1 * outward), 1.5)
    # Standing still is 0.1 off, and nothing can be better; whatever moves for nothing is worse.
    assert error(model, outside[-1], led(T, 0.1 * outward)(1.0)) == pytest.approx(0.1, abs=1e-4)
    assert np.max(np.abs(np.diff(outside[-50:], axis=0))) / DT_S < 0.01
    for positions in (inside, outside):
        assert violations(controller, q, positions) == []


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_wrist_turns_its_lost_direction_away(side: float) -> None:
    controller = make("ur5e")
    model, q = controller.model, wrist(controller.model)
    pose_at = led(model.forward_kinematics(q), side * 0.1 * np.linalg.svd(model.jacobian(q))[0][:, -1])
    positions = follow(controller, q, pose_at, 2.5)
    assert error(model, positions[-1], pose_at(1.0)) < 1e-3
    assert violations(controller, q, positions) == []


@pytest.mark.parametrize(
    ("robot", "direction", "dt_s"),
    [
        *((robot, direction, DT_S) for robot in ARMS for direction in ((1, 0, 0), (0, 0, 1), (0, 1, 0), (-1, 0.5, -1))),
        ("panda", (1, 1, 1), 0.002),
        ("ur5e", (1, 1, 1), 0.002),
    ],
)
def test_there_out_of_the_workspace_and_back(robot: str, direction: tuple[float, ...], dt_s: float) -> None:
    controller = make(robot, dt_s)
    model = controller.model
    T_home, way = model.forward_kinematics(model.home), np.array(direction) / np.linalg.norm(direction)
    far_m = 1.8 if robot == "ur10e" else 1.2

    def pose_at(time_s: float) -> FloatArray:
        out_m = far_m * np.clip(min(time_s, 7.0 - time_s) / 3.0, 0.0, 1.0)
        return se3.make_pose(T_home[:3, 3] + out_m * way, T_home[:3, :3])

    positions = follow(controller, model.home, pose_at, 8.5)
    assert violations(controller, model.home, positions) == []
    off = se3.pose_error(model.forward_kinematics(positions[-1]), T_home)
    assert np.linalg.norm(off[:3]) < 1e-3
    assert np.linalg.norm(off[3:]) < np.radians(0.1)
    # While it waits out there for what can't be had, it waits.
    waiting = positions[round(3.8 / dt_s) : round(3.95 / dt_s)]
    assert np.max(np.abs(np.diff(waiting, axis=0))) / dt_s < 0.25


@pytest.mark.parametrize("seed", range(6))
def test_step_to_a_reachable_pose_does_not_swing_past_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    controller = make(ARMS[seed % 4])
    model = controller.model
    T_home = model.forward_kinematics(model.home)
    T = se3.make_pose(
        T_home[:3, 3] + rng.uniform(-0.12, 0.12, 3),
        Rotation.from_rotvec(rng.uniform(-0.4, 0.4, 3)).as_matrix() @ T_home[:3, :3],
    )
    positions = follow(controller, model.home, lambda _time_s: T, 4.0)
    assert violations(controller, model.home, positions) == []
    errors = np.array([error(model, q, T) for q in positions[::5]])
    assert errors[-1] < 1e-6
    # It comes nearer all the time, but for what the joints' own braking bends.
    assert np.max(np.maximum.accumulate(errors[::-1])[::-1] - errors) < 0.05 * errors[0]


def test_strong_directions_are_asked_for_what_brakes_in_time() -> None:
    """With a Jacobian of ones, the speed towards a target x away is b (sqrt(t^2 + 2 x / b) - t), t the delay."""
    b, j = 3.0, 100.0
    way_back = WayBack(lambda _q: np.eye(6), 0.05, np.full(6, b), np.full(6, j), FAST, DT_S)
    x, zero = np.array([0.3, -0.02, 1e-5, 0.0, 0.0, 0.0]), np.zeros(6)
    t = 1.5 * b / j + 0.016
    speeds = np.sign(x) * b * (np.sqrt(t**2 + 2.0 * np.abs(x) / b) - t)
    J, twist = way_back.problem(zero, np.eye(6), x, zero, zero, speeds)
    np.testing.assert_allclose(J, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(twist, speeds, atol=1e-12)
    # From any such speed the target is reached before a stop after the delay ends.
    assert np.all(np.abs(twist) * t + twist**2 / (2.0 * b) <= np.abs(x) + 1e-12)
    # From rest, speed grows by no more than what the acceleration leaves while half of the jerk takes it back.
    _, begun = way_back.problem(zero, np.eye(6), x, zero, zero, zero)
    growth = np.abs(begun) / DT_S
    assert np.all(growth**2 / (2.0 * 0.5 * j) <= np.abs(speeds) + 1e-12)
    np.testing.assert_allclose(begun, np.sign(x) * np.minimum(np.abs(speeds), DT_S * np.sqrt(j * np.abs(speeds))))


@pytest.mark.parametrize("asked", [0.02, -0.02])
def test_weak_direction_is_taken_to_the_root_of_its_parabola_or_to_its_summit(asked: float) -> None:
    """A tool whose way along its sixth joint is 0.01 x + 0.4 x^2: a root up, a summit down."""

    def jacobian(q: FloatArray) -> FloatArray:
        return np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 0.01 + 0.8 * q[5]])

    way_back = WayBack(jacobian, 0.05, np.full(6, 1e6), np.full(6, np.inf), FAST, DT_S)
    error = np.array([0.0, 0.0, 0.0, 0.0, 0.0, asked])
    zero = np.zeros(6)
    J, twist = way_back.problem(zero, jacobian(zero), error, zero, zero, zero)
    step = float(np.linalg.solve(J, twist)[5]) * 0.05  # What is left of a way goes in 0.05 s.
    roots = np.roots([0.4, 0.01, -asked])
    if asked > 0.0:
        assert step == pytest.approx(min(roots, key=abs), rel=1e-3)
    else:
        assert np.all(np.iscomplex(roots))
        assert step == pytest.approx(-0.01 / 0.8, rel=1e-3)


@pytest.mark.parametrize("liking", [1.0, -1.0])
def test_of_two_equal_ways_out_the_liked_one_is_taken(liking: float) -> None:
    def jacobian(q: FloatArray) -> FloatArray:
        return np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 0.8 * q[5]])

    way_back = WayBack(jacobian, 0.05, np.full(6, 1.0), np.full(6, 100.0), FAST, DT_S)
    zero, sixth = np.zeros(6), np.eye(6)[5]
    for posture, now in ((liking * sixth, zero), (-liking * sixth, liking * sixth)):
        J, twist = way_back.problem(zero, jacobian(zero), 0.02 * sixth, zero, posture, now)
        assert np.sign(np.linalg.solve(J, twist)[5]) == liking


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_tool_comes_back_no_faster_than_it_may_ever_be(robot: str) -> None:
    """From a fifth of a metre away, with a robot whose tool may do little; speeds from the commands' own kinematics."""
    config = load_robot(robot)
    slow = replace(config.tool, velocity_m_s=0.2, angular_velocity_rad_s=0.5)
    model = RobotModel.from_config(replace(config, tool=slow))
    controller = CartesianController(model, ControllerConfig())
    T_home = model.forward_kinematics(model.home)
    R = Rotation.from_rotvec([0.0, 0.3, 0.8]).as_matrix() @ T_home[:3, :3]
    T = se3.make_pose(T_home[:3, 3] + [0.05, 0.2, 0.05], R)
    positions = follow(controller, model.home, lambda _time_s: T, 5.0)
    assert error(model, positions[-1], T) < 1e-6
    poses = np.array([model.forward_kinematics(q) for q in positions])
    speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / controller.dt_s
    turns = Rotation.from_matrix(poses[1:, :3, :3]) * Rotation.from_matrix(poses[:-1, :3, :3]).inv()
    turn = turns.magnitude() / controller.dt_s
    assert 0.15 < speed.max() < 1.02 * 0.2
    # While the joints still build up or take back their accelerations, they turn the tool for themselves.
    assert np.percentile(turn, 99.0) < 1.02 * 0.5
    assert 0.4 < turn.max() < 1.4 * 0.5
