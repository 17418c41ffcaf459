"""The controller: pure, exact where the motion is feasible, inside the joints' limits whatever it is told."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.control.cartesian_controller import CartesianController, ControllerReport, ControllerState
from vla_ros.control.config import ControllerConfig
from vla_ros.control.guard import JointGuard, at_rest
from vla_ros.control.stopping import GuardLimits
from vla_ros.errors import ChunkError
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.geometry import se3
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import (
    FloatArray,
    JointChunk,
    JointCommand,
    JointTarget,
    MotionState,
    RobotState,
    ToolChunk,
    ToolTarget,
)

TICK_NS = 4_000_000
NS = 1_000_000_000
Target = ToolTarget | JointTarget | None


@pytest.fixture(scope="module", params=["panda", "ur5e", "fr3", "ur10e"])
def controller(request: pytest.FixtureRequest) -> CartesianController:
    config = load(ControllerConfig, package_share() / "config" / "controller.yaml")
    assert config.rate_hz == 250.0
    return CartesianController(RobotModel.from_config(load_robot(request.param)), config)


def tool(T_base_tcp: FloatArray, twist: FloatArray | None = None, opening: float | None = None) -> ToolTarget:
    return ToolTarget(0, T_base_tcp, np.full(6, 0.1) if twist is None else twist, opening)


def moving(poses: FloatArray, dt_s: float) -> list[Target]:
    """Targets along poses (n, 4, 4), a tick apart, with the twists that they have."""
    turns = Rotation.from_matrix(poses[1:, :3, :3]) * Rotation.from_matrix(poses[:-1, :3, :3]).inv()
    twists = np.hstack([np.diff(poses[:, :3, 3], axis=0), turns.as_rotvec()]) / dt_s
    return [tool(T, twist) for T, twist in zip(poses, np.vstack([twists[:1], twists]), strict=True)]


def joints(positions: FloatArray) -> JointTarget:
    return JointTarget(0, positions, np.zeros(len(positions)))


@dataclass
class Run:
    """Commands and reports tick by tick; `state` is the last."""

    state: ControllerState
    commands: list[JointCommand]
    reports: list[ControllerReport]

    @property
    def positions(self) -> FloatArray:
        return np.array([command.positions for command in self.commands])

    @property
    def named(self) -> set[str]:
        return {item.limit for report in self.reports for item in report.interventions}


def run(controller: CartesianController, state: ControllerState, targets: list[Target]) -> Run:
    commands, reports = [], []
    for target in targets:
        state, command, report = controller.step(state, target, controller.dt_s)
        commands.append(command)
        reports.append(report)
    return Run(state, commands, reports)


def violations(controller: CartesianController, start: FloatArray, positions: FloatArray) -> list[str]:
    """By positions alone, from rest at `start`."""
    track = np.vstack([np.tile(start, (4, 1)), positions])
    report = judge_limits(np.arange(len(track)) * TICK_NS, track, controller.model)
    return [str(first) for first in report.first_violations.values()]


def random_pose(rng: np.random.Generator, model: RobotModel) -> FloatArray:
    kind = rng.integers(4)
    if kind == 0:
        return model.forward_kinematics(rng.uniform(model.lower, model.upper))
    if kind == 1:
        return se3.make_pose(rng.uniform(-2, 2, 3), Rotation.random(random_state=rng).as_matrix())
    if kind == 2:
        return se3.make_pose(np.array([0.02, 0.0, 0.5]) * rng.uniform(0, 2, 3), np.eye(3))
    return se3.make_pose(rng.normal(0, 10.0 ** rng.uniform(0, 200), 3), np.eye(3))


def random_targets(rng: np.random.Generator, model: RobotModel, count: int) -> list[Target]:
    """Stretches of rest, jumps, drifts and jitter in either space, and of nothing."""
    targets: list[Target] = []
    while len(targets) < count:
        length, kind = int(10.0 ** rng.uniform(0.0, 2.4)), rng.integers(6)
        T, q = random_pose(rng, model), rng.uniform(model.lower, model.upper) * rng.choice([0.5, 1.0, 3.0])
        drift = rng.normal(0, 0.004, 3)
        for _ in range(length):
            if kind == 0:
                targets.append(None)
            elif kind == 1:
                targets.append(joints(q))
            elif kind == 2:
                q = q + rng.normal(0, 0.02, len(q))
                targets.append(joints(q))
            elif kind == 3:
                targets.append(tool(random_pose(rng, model)))
            else:
                T = se3.make_pose(T[:3, 3] + drift, T[:3, :3]) if kind == 4 else T
                targets.append(tool(T))
    return targets[:count]


def test_step_is_pure(controller: CartesianController) -> None:
    rng = np.random.default_rng(0)
    state = controller.init(controller.model.home, 0.5)
    for target in random_targets(rng, controller.model, 300):
        before, before_target = copy.deepcopy(state), copy.deepcopy(target)
        new, command, report = controller.step(state, target, controller.dt_s)
        controller.step(new, random_targets(rng, controller.model, 1)[0], controller.dt_s)
        again, command_again, report_again = controller.step(state, target, controller.dt_s)
        for a, b in ((new, again), (state, before)):
            np.testing.assert_array_equal(a.reference, b.reference)
            np.testing.assert_array_equal(a.command.history, b.command.history)
            np.testing.assert_array_equal(a.command.wanted, b.command.wanted)
            np.testing.assert_array_equal(a.command.accelerations, b.command.accelerations)
        np.testing.assert_array_equal(command.positions, command_again.positions)
        assert report.interventions == report_again.interventions
        if isinstance(target, ToolTarget) and isinstance(before_target, ToolTarget):
            np.testing.assert_array_equal(target.T_base_tcp, before_target.T_base_tcp)
        state = new


def test_feasible_sinusoid_is_followed_to_a_tenth_of_a_millimetre(controller: CartesianController) -> None:
    model = controller.model
    T_home = model.forward_kinematics(model.home)
    t = controller.dt_s * np.arange(1, 2501)[:, None]
    phase = 2.0 * np.pi * 0.25 * t * (1.0 - np.exp(-(t**2)))
    p = T_home[:3, 3] + np.hstack([0.06 * np.sin(phase), 0.08 * (1 - np.cos(phase)), 0.05 * np.sin(2 * phase)])
    turns = Rotation.from_rotvec(np.hstack([0.2 * np.sin(phase), 0.0 * phase, 0.3 * (1 - np.cos(phase))])).as_matrix()
    poses = se3.make_pose(p, turns @ T_home[:3, :3])
    followed = run(controller, controller.init(model.home), moving(poses, controller.dt_s))
    reached = np.array([model.forward_kinematics(q) for q in followed.positions])
    assert np.max(np.linalg.norm(reached[:, :3, 3] - p, axis=1)) < 1e-4
    off = (Rotation.from_matrix(reached[:, :3, :3]).inv() * Rotation.from_matrix(poses[:, :3, :3])).magnitude()
    assert np.max(off) < 1e-3
    assert followed.named == set()
    assert not any(report.is_clipped for report in followed.reports)
    assert violations(controller, model.home, followed.positions) == []


def test_reported_velocities_are_those_of_the_positions(controller: CartesianController) -> None:
    targets = random_targets(np.random.default_rng(3), controller.model, 1500)
    commands = run(controller, controller.init(controller.model.home), targets).commands
    positions = np.array([command.positions for command in commands])
    velocities = np.array([command.velocities for command in commands])
    # A difference is a mean over the tick, of which the ends differ by at most a dt.
    gap = np.abs(np.diff(positions, axis=0) / controller.dt_s - 0.5 * (velocities[1:] + velocities[:-1]))
    assert np.all(gap <= controller.model.acceleration * controller.dt_s)


@pytest.mark.parametrize("seed", range(2))
def test_no_target_brings_a_command_past_a_limit(controller: CartesianController, seed: int) -> None:
    targets = random_targets(np.random.default_rng(seed), controller.model, 2600)
    commands = run(controller, controller.init(controller.model.home), targets).positions
    assert np.all(np.isfinite(commands))
    assert violations(controller, controller.model.home, commands) == []


def test_judge_sees_the_violations_that_this_file_is_about(controller: CartesianController) -> None:
    home = controller.model.home
    jump = np.vstack([np.tile(home, (5, 1)), np.tile(home + 0.1, (5, 1))])
    assert violations(controller, home, jump)


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 0, 1), (0, 1, 0), (1, 1, 1)])
def test_target_out_of_reach_is_followed_as_far_as_the_arm_goes_and_back(
    controller: CartesianController, direction: tuple[int, int, int]
) -> None:
    model = controller.model
    T_home = model.forward_kinematics(model.home)
    way = np.array(direction) / np.linalg.norm(direction)
    out = np.linspace(0.0, 1.2, 1200)
    s = np.concatenate([out, np.full(250, 1.2), out[::-1], np.zeros(250)])
    targets: list[Target] = [tool(se3.make_pose(T_home[:3, 3] + x * way, T_home[:3, :3])) for x in s]
    swept = run(controller, controller.init(model.home), targets)
    assert violations(controller, model.home, swept.positions) == []
    p = np.array([model.forward_kinematics(q)[:3, 3] for q in swept.positions[::10]])
    off_m = np.linalg.norm(p - (T_home[:3, 3] + s[::10, None] * way), axis=1)
    # The furthest that random postures come in this direction; the arm, which keeps its rotation too, comes near to it.
    postures = np.random.default_rng(0).uniform(model.lower, model.upper, (3000, len(model.names)))
    furthest = max((model.forward_kinematics(q)[:3, 3] - T_home[:3, 3]) @ way for q in postures)
    assert np.max((p - T_home[:3, 3]) @ way) > 0.35 * furthest
    # It doesn't hunt while it waits out there.
    speed = np.abs(np.diff(swept.positions[1350:1450], axis=0)) / controller.dt_s
    assert speed.max() < 0.25
    # Where the target is in reach again so is the arm, and at home it is as if nothing had been.
    assert off_m[-1] < 1e-3
    assert np.linalg.norm(p[-1] - p[-2]) / (10 * controller.dt_s) < 1e-3


@pytest.mark.parametrize("seed", range(2))
def test_without_a_target_the_arm_brakes_to_rest_in_time_and_stays(controller: CartesianController, seed: int) -> None:
    model, limits = controller.model, controller.limits
    moving = random_targets(np.random.default_rng(20 + seed), model, 400)
    start = run(controller, controller.init(model.home), moving)
    held = run(controller, start.state, [None] * 500)
    track = np.vstack([start.positions, held.positions])
    assert violations(controller, model.home, track) == []
    # From full speed it takes v/a + a/j to stop, and with the acceleration the wrong way at first another 2 a/j.
    allowed_s = limits.velocity / limits.acceleration + 3.0 * limits.acceleration / limits.jerk + 2 * controller.dt_s
    speed = np.abs(np.diff(held.positions, axis=0)) / controller.dt_s
    for joint, time_s in enumerate(allowed_s):
        assert np.all(speed[int(time_s / controller.dt_s) :, joint] < 1e-6)
    np.testing.assert_array_equal(held.positions[-1], held.positions[-100])
    assert held.named == set()


NOT_FINITE: dict[str, Target] = {
    "position": tool(se3.make_pose(np.array([0.4, np.nan, 0.3]))),
    "rotation": tool(np.where(np.arange(16).reshape(4, 4) == 5, np.inf, np.eye(4))),
    "last row": tool(np.where(np.arange(16).reshape(4, 4) == 14, np.nan, np.eye(4))),
    "twist": tool(np.eye(4), twist=np.full(6, -np.inf)),
    "opening": tool(np.eye(4), opening=float("nan")),
    "joint": joints(np.full(6, np.nan)),
    "joint velocity": JointTarget(0, np.zeros(6), np.full(6, np.inf)),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_target_that_is_not_finite_is_named_and_braked_on_as_on_none(name: str) -> None:
    config = load(ControllerConfig, package_share() / "config" / "controller.yaml")
    controller = CartesianController(RobotModel.from_config(load_robot("ur5e")), config)
    T_home = controller.model.forward_kinematics(controller.model.home)
    goal = tool(se3.make_pose(T_home[:3, 3] + [0.0, 0.2, 0.0], T_home[:3, :3]), opening=0.7)
    moving = run(controller, controller.init(controller.model.home), [goal] * 60)
    assert np.abs(moving.state.command.velocities).max() > 0.1
    refused = run(controller, moving.state, [NOT_FINITE[name]] * 300)
    braked = run(controller, moving.state, [None] * 300)
    np.testing.assert_array_equal(refused.positions, braked.positions)
    assert all([item.limit for item in report.interventions] == ["finite"] for report in refused.reports)
    assert {command.gripper_opening for command in refused.commands} == {0.7}


def test_poses_beyond_all_measure_leave_the_command_finite(controller: CartesianController) -> None:
    for size in (1e3, 1e150, 1e308):
        poses = [se3.make_pose(np.array([size, -size, size])), size * np.eye(4), se3.make_pose(np.zeros(3))]
        with np.errstate(all="ignore"):
            commands = run(controller, controller.init(controller.model.home), [tool(T) for T in poses] * 60).positions
        assert np.all(np.isfinite(commands))
        assert violations(controller, controller.model.home, commands) == []


def test_joints_outside_their_limits_come_back_slowly_and_then_obey(controller: CartesianController) -> None:
    model = controller.model
    start = model.home.copy()
    start[0], start[3] = model.upper[0] + 0.05, model.lower[3] - 0.03
    targets: list[Target] = [None] * 10 + [tool(model.forward_kinematics(model.home))] * 2500
    back = run(controller, controller.init(start), targets).positions
    track = np.vstack([start, back])
    is_out = (track < model.lower - 1e-9) | (track > model.upper + 1e-9)
    assert is_out[0].sum() == 2
    assert not is_out[-1].any()
    # Outside, each joint goes only inwards and at walking pace.
    excess = np.maximum(np.maximum(track - model.upper, model.lower - track), 0.0)
    assert np.all(np.diff(excess, axis=0) <= 1e-12)
    speed = np.abs(np.diff(track, axis=0)) / controller.dt_s
    assert np.all(speed[is_out[1:]] <= 0.1 + 1e-6)
    assert np.all(np.abs(np.diff(track, 2, axis=0)) / controller.dt_s**2 <= model.acceleration * (1 + 1e-4))


@pytest.mark.parametrize("locked", [0, 2])
def test_joint_with_a_velocity_limit_of_zero_stands_and_the_others_do_what_they_can(locked: int) -> None:
    robot = load_robot("panda")
    frozen = tuple(
        replace(joint, velocity_rad_s=0.0) if index == locked else joint for index, joint in enumerate(robot.joints)
    )
    config = load(ControllerConfig, package_share() / "config" / "controller.yaml")
    controller = CartesianController(RobotModel.from_config(replace(robot, joints=frozen)), config)
    model = controller.model
    T_home = model.forward_kinematics(model.home)
    lift = tool(se3.make_pose(T_home[:3, 3] + [0.05, 0.0, 0.08], T_home[:3, :3]))
    with np.errstate(all="raise"):
        lifted = run(controller, controller.init(model.home), [lift] * 700)
    np.testing.assert_array_equal(lifted.positions[:, locked], np.full(700, model.home[locked]))
    np.testing.assert_allclose(model.forward_kinematics(lifted.positions[-1]), lift.T_base_tcp, atol=1e-4)
    t = controller.dt_s * np.arange(1, 1001)[:, None]
    sway = lift.T_base_tcp[:3, 3] + 0.04 * (1.0 - np.cos(t)) * np.array([0.3, 0.0, 1.0])
    swayed = run(controller, lifted.state, [tool(se3.make_pose(p, T_home[:3, :3])) for p in sway])
    reached = np.array([model.forward_kinematics(q)[:3, 3] for q in swayed.positions])
    assert np.max(np.linalg.norm(reached - sway, axis=1)[100:]) < 1e-6
    anything = run(controller, lifted.state, random_targets(np.random.default_rng(0), model, 1500))
    assert np.all(anything.positions[:, locked] == model.home[locked])
    assert violations(controller, model.home, np.vstack([lifted.positions, anything.positions])) == []


def test_reported_singular_value_is_of_the_joints_that_may_move() -> None:
    robot = load_robot("ur5e")
    frozen = tuple(
        replace(joint, velocity_rad_s=0.0 if index == 2 else 1.0) for index, joint in enumerate(robot.joints)
    )
    model = RobotModel.from_config(replace(robot, joints=frozen))
    controller = CartesianController(model, ControllerConfig())
    _, _, report = controller.step(
        controller.init(model.home), tool(model.forward_kinematics(model.home)), controller.dt_s
    )
    # Five joints can't do all of the tool's six directions.
    assert report.sigma_min == pytest.approx(0.0, abs=1e-9)


def test_joint_target_is_reached_and_held(controller: CartesianController) -> None:
    model = controller.model
    q = model.home + 0.3 * np.cos(np.arange(len(model.home)))
    reached = run(controller, controller.init(model.home), [joints(q)] * 700)
    np.testing.assert_allclose(reached.positions[-1], q, atol=1e-9)
    far = q.copy()
    far[[0, -1]] = 100.0
    beyond = run(controller, reached.state, [joints(far)] * 4000)
    assert "joint_position" in beyond.named
    assert np.all(beyond.positions <= model.upper)
    # Where speed has to vanish before the end of the range (FR3), the last half of a milliradian isn't worth a tick.
    short = 1e-6 if controller.limits.drift.max() == 0.0 else 5e-4
    np.testing.assert_allclose(beyond.positions[-1], np.minimum(far, controller.limits.upper), atol=short)


def test_gripper_opening_passes_and_stays(controller: CartesianController) -> None:
    T = controller.model.forward_kinematics(controller.model.home)
    targets: list[Target] = [tool(T), tool(T, opening=1.0), tool(T), None, tool(T, opening=0.0), None]
    openings = [
        item.gripper_opening for item in run(controller, controller.init(controller.model.home), targets).commands
    ]
    assert openings == [None, 1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["jump", "stops dead", "lost"])
@pytest.mark.parametrize("seed", range(2))
def test_guard_settles_on_what_is_wanted_without_swinging(
    controller: CartesianController, seed: int, kind: str
) -> None:
    """Closing a gap with limits that changed with its own state once swung to and fro for good on the UR5e."""
    limits, dt_s, home = controller.limits, controller.dt_s, controller.model.home
    rng = np.random.default_rng(seed)
    goal = home + rng.uniform(-0.5, 0.5, len(home))
    # A joint at full speed is at rest after v/a + a/j; thrice that is stop, way back and stop again, at a fifth of a.
    slowest_s = np.max(limits.velocity / limits.greatest_braking + limits.acceleration / limits.jerk)
    settling = int(5.0 * slowest_s / dt_s)
    wanted = np.tile(goal, (settling + 100, 1))
    if kind == "stops dead":
        pace = rng.uniform(-0.9, 0.9, len(home)) * limits.velocity
        wanted = home + pace * dt_s * np.minimum(np.arange(1, settling + 180), 79)[:, None]
    elif kind == "lost":
        wanted = np.vstack([home + rng.uniform(-0.2, 0.2, (60, len(home))), wanted])
    wanted = np.clip(wanted, limits.lower, limits.upper)
    guard, motion, track = JointGuard(limits, dt_s), at_rest(home), []
    for positions in wanted:
        motion, _ = guard.step(motion, positions)
        track.append(motion.positions)
    commands = np.array(track)
    assert violations(controller, home, commands) == []
    settled = len(wanted) - 100
    np.testing.assert_allclose(commands[settled:], wanted[-1][None].repeat(len(wanted) - settled, axis=0), atol=1e-6)
    if kind == "jump":
        past = (commands - goal) * np.sign(goal - home)
        assert past.max() < 1e-3


@pytest.mark.parametrize("size_rad", [3e-5, 1e-4, 1e-3])
def test_glitch_of_one_tick_does_not_throw_the_arm_off(controller: CartesianController, size_rad: float) -> None:
    limits, dt_s, home = controller.limits, controller.dt_s, controller.model.home
    t = dt_s * np.arange(800)[:, None]
    wanted = home + 0.1 * (1.0 - np.cos(1.5 * t)) * (1.0 - np.exp(-(t**2))) * np.ones(len(home))
    wanted[400] += size_rad
    guard, motion, lags = JointGuard(limits, dt_s), at_rest(home), []
    for positions in wanted:
        motion, _ = guard.step(motion, positions)
        lags.append(np.max(np.abs(motion.positions - positions)))
    # Chasing the glitch's derivatives took a UR5e 50 mrad away, and it never came back.
    assert max(lags[401:]) < 3e-3
    assert max(lags[500:]) == 0.0


def random_chunk(
    rng: np.random.Generator, model: RobotModel, q: FloatArray, now_ns: int, source: str
) -> ToolChunk | JointChunk:
    count = int(rng.integers(1, 12))
    times_s = np.cumsum(rng.uniform(0.01, 0.2, count))
    stamp_ns = now_ns - round(rng.uniform(0.0, 0.8) * NS)
    openings = rng.integers(0, 2, count).astype(float)
    if rng.random() < 0.15:
        walk = q + np.cumsum(rng.normal(0, 10.0 ** rng.uniform(-3, 0), (count, len(q))), axis=0)
        return JointChunk(stamp_ns, walk, openings, times_s, source)
    size = 10.0 ** rng.uniform(-3, 1)
    moves = np.cumsum(rng.normal(0, size, (count, 3)), axis=0)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, min(2.0, 3 * size), (count, 3)), axis=0)).as_matrix()
    return ToolChunk(stamp_ns, ("tcp", "base")[rng.integers(2)], se3.make_pose(moves, turns), openings, times_s, source)


class Stack:
    """Filter, controller and an arm that does exactly what it is told."""

    def __init__(self, controller: CartesianController) -> None:
        self.controller, self.model = controller, controller.model
        config = load(SafetyConfig, package_share() / "config" / "safety.yaml")
        limits = OffsetLimits(self.model.velocity, self.model.acceleration, self.model.jerk)
        self.filter = SafetyFilter(config, self.model.config.tool, self.model.forward_kinematics, limits)
        self.states = JointStateBuffer(capacity=1024)
        self.state = controller.init(self.model.home)
        self.now_ns = 1_700_000_000 * NS
        self.filter.select_source("p", self.now_ns)
        self.positions: list[FloatArray] = []
        self.taken = 0

    def tick(self, count: int = 1) -> MotionState:
        for _ in range(count):
            self.now_ns += TICK_NS
            measured = self.state.command
            self.states.append(
                RobotState(self.now_ns - TICK_NS // 2, measured.positions, np.array(measured.velocities))
            )
            target, _ = self.filter.step(self.now_ns, self.controller.dt_s, self.states.newest())
            self.state, command, _ = self.controller.step(self.state, target, self.controller.dt_s)
            self.positions.append(command.positions)
        return self.filter.state

    def offer(self, chunk: ToolChunk | JointChunk) -> None:
        try:
            self.filter.offer(chunk, self.now_ns, self.states)
        except ChunkError:
            return
        self.taken += 1


@pytest.mark.parametrize("seed", range(2))
def test_no_stream_of_chunks_brings_a_command_past_a_limit(controller: CartesianController, seed: int) -> None:
    rng = np.random.default_rng(40 + seed)
    stack = Stack(controller)
    stack.tick(250)
    for _ in range(220):
        draw = rng.random()
        if draw < 0.03:
            stack.filter.stop("button", stack.now_ns)
        elif draw < 0.06:
            stack.filter.select_source("pq"[rng.integers(2)], stack.now_ns)
        elif draw < 0.08:
            stack.filter.drop_chunks(stack.now_ns, "task")
        elif draw < 0.2:
            stack.filter.reset(stack.now_ns)
        else:
            stack.offer(random_chunk(rng, stack.model, stack.positions[-1], stack.now_ns, "pq"[rng.integers(2)]))
        stack.tick(int(rng.integers(1, 25)))
    assert stack.taken > 10
    assert violations(controller, controller.model.home, np.array(stack.positions)) == []
    moved = np.max(np.abs(np.array(stack.positions) - controller.model.home), axis=0)
    assert moved.max() > 0.2


@pytest.mark.parametrize("seed", range(2))
def test_chunk_is_followed_to_its_end_through_filter_and_controller(controller: CartesianController, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = Stack(controller)
    stack.tick(150)
    T_now = stack.model.forward_kinematics(stack.positions[-1])
    move, turn = rng.uniform(-0.06, 0.06, 3), rng.uniform(-0.2, 0.2, 3)
    part = np.linspace(0.125, 1.0, 8)
    deltas = se3.make_pose(np.outer(part, move), Rotation.from_rotvec(np.outer(part, turn)).as_matrix())
    stack.offer(
        ToolChunk(stack.now_ns - int(rng.integers(0, 140)) * TICK_NS, "base", deltas, None, 0.15 * np.arange(1, 9), "p")
    )
    assert stack.tick() is MotionState.RUNNING
    for _ in range(1000):
        if stack.tick() is not MotionState.RUNNING:
            break
    assert stack.filter.state is MotionState.HOLDING
    stack.tick(50)
    T_end = stack.model.forward_kinematics(stack.positions[-1])
    assert np.linalg.norm(T_end[:3, 3] - T_now[:3, 3] - move) < 1e-3
    off = Rotation.from_matrix(T_end[:3, :3] @ (deltas[-1, :3, :3] @ T_now[:3, :3]).T).magnitude()
    assert off < 5e-3
    assert violations(controller, controller.model.home, np.array(stack.positions)) == []


def test_sigma_threshold_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma_threshold"):
        ControllerConfig(sigma_threshold=0.0)


def test_guard_limits_keep_the_margins_of_the_configuration(controller: CartesianController) -> None:
    limits: GuardLimits = controller.limits
    model, config = controller.model, controller.config
    np.testing.assert_allclose(limits.velocity, config.velocity_fraction * model.velocity)
    np.testing.assert_allclose(limits.lower, model.lower + config.position_margin_rad)


def test_ticks_of_changing_duration_keep_the_limits_and_the_path(controller: CartesianController) -> None:
    """Judged by divided differences at the uneven times at which the commands are due."""
    model, rng = controller.model, np.random.default_rng(4)
    T_home, state, now_ns = model.forward_kinematics(model.home), controller.init(model.home), 0
    stamps_ns, positions = [0], [model.home]
    for tick in range(2400):
        if tick % 60 == 0:
            dt_s = float(rng.choice([0.002, 0.004, 0.005]))
        now_ns += round(1e9 * dt_s)
        t = 1e-9 * now_ns
        p = T_home[:3, 3] + 0.06 * np.array([np.sin(t), 1.0 - np.cos(t), 0.5 * np.sin(2.0 * t)]) * (
            1.0 - np.exp(-t * t)
        )
        state, command, _ = controller.step(state, tool(se3.make_pose(p, T_home[:3, :3])), dt_s)
        stamps_ns.append(now_ns)
        positions.append(command.positions)
    report = judge_limits(np.array(stamps_ns), np.array(positions), model)
    assert report.is_clean, report.first_violations
    assert np.linalg.norm(model.forward_kinematics(positions[-1])[:3, 3] - p) < 2e-3
    with pytest.raises(ValueError, match=r"a tick of 0\.5 s"):
        controller.step(state, None, 0.5)


def test_arm_with_its_joints_in_another_order_moves_the_same(controller: CartesianController) -> None:
    robot = controller.model.config
    turned = replace(robot, joints=robot.joints[::-1], effort_nm=robot.effort_nm[::-1])
    other = CartesianController(RobotModel.from_config(turned), controller.config)
    T_home = controller.model.forward_kinematics(controller.model.home)
    t = controller.dt_s * np.arange(500)
    poses = np.tile(T_home, (500, 1, 1))
    poses[:, 1, 3] += 0.2 * np.sin(t) * (1.0 - np.exp(-(t**2)))
    poses[200:, 0, 3] += 0.05  # A step, for the ways that are taken when something has to be bounded.
    targets = [*moving(poses, controller.dt_s), None, None]
    one = run(controller, controller.init(controller.model.home), targets).positions
    two = run(other, other.init(other.model.home), targets).positions
    np.testing.assert_allclose(two[:, ::-1], one, atol=1e-6)
