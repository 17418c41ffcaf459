"""What leaves for an arm: by every interface it keeps the limits, also when it ends, comes late or starts anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import ruckig
from scipy.interpolate import BPoly

from vla_ros.control.braking import stop_positions
from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.config import ControllerConfig
from vla_ros.control.interfaces import make_sender
from vla_ros.control.sending import JointPoints, Sending
from vla_ros.control.trajectories import TrajectoryStream
from vla_ros.errors import ConfigError
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.geometry.se3 import pose_error
from vla_ros.robots.config import CommandConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, JointCommand, JointTarget

ROBOTS = ("panda", "ur5e", "fr3", "ur10e")
MS = 1_000_000
POSITION = CommandConfig("position", "commands")


def make_controller(robot: str, rate_hz: float = 250.0, **settings: float) -> CartesianController:
    return CartesianController(RobotModel.from_config(load_robot(robot)), ControllerConfig(rate_hz=rate_hz, **settings))


def wild_targets(controller: CartesianController, rng: np.random.Generator) -> Iterator[JointTarget | None]:
    """Joint targets near and far that jump now and then, and pauses between them."""
    model = controller.model
    while True:
        goal = rng.uniform(model.lower, model.upper) if rng.random() < 0.5 else model.home + rng.normal(0.0, 0.05, 1)
        is_pause = rng.random() < 0.1
        for _ in range(int(rng.integers(1, 120))):
            yield None if is_pause else JointTarget(0, goal, np.zeros(len(goal)))


def moving_commands(robot: str, rng: np.random.Generator, count: int) -> Iterator[tuple[ControllerState, JointCommand]]:
    """States and commands in the middle of motions of a controller."""
    controller = make_controller(robot)
    for _ in range(count):
        state, command = controller.init(controller.model.home), None
        for target in itertools.islice(wild_targets(controller, rng), int(rng.integers(2, 200))):
            state, command, _ = controller.step(state, target, controller.dt_s)
        assert command is not None
        yield state, command


# The stop


@pytest.mark.parametrize("robot", ROBOTS)
def test_stop_at_once_is_the_guards_stop_tick_by_tick(robot: str) -> None:
    controller = make_controller(robot)
    for state, command in moving_commands(robot, np.random.default_rng(1), 25):
        stop = stop_positions(
            command.positions, command.velocities, command.accelerations, controller.limits, controller.dt_s
        )
        braked = []
        for _ in range(len(stop) + 3):
            state, command, _ = controller.step(state, None, controller.dt_s)
            braked.append(command.positions)
        inside = np.all((braked[0] >= controller.limits.lower) & (braked[0] <= controller.limits.upper))
        assert inside
        np.testing.assert_allclose(braked[: len(stop)], stop, atol=1e-9)
        np.testing.assert_allclose(braked[len(stop) :], np.tile(stop[-1], (3, 1)), atol=1e-9)


def test_stop_takes_the_time_and_the_way_that_ruckig_takes() -> None:
    limits = make_controller("panda").limits
    rng = np.random.default_rng(2)
    for _ in range(200):
        velocity, acceleration = rng.uniform(-1, 1, (2, 7)) * [limits.velocity, limits.acceleration]
        given = ruckig.InputParameter(7)
        given.control_interface, given.synchronization = ruckig.ControlInterface.Velocity, ruckig.Synchronization.No
        given.current_velocity, given.current_acceleration = velocity.tolist(), acceleration.tolist()
        given.max_acceleration, given.max_jerk = limits.acceleration.tolist(), limits.jerk.tolist()
        trajectory = ruckig.Trajectory(7)
        ruckig.Ruckig(7).calculate(given, trajectory)
        stop = stop_positions(np.zeros(7), velocity, acceleration, limits, 1e-3)
        assert len(stop) == int(np.ceil(trajectory.duration / 1e-3 - 1e-6))
        expected = [trajectory.at_time(1e-3 * tick)[0] for tick in range(1, len(stop) + 1)]
        np.testing.assert_allclose(stop, expected, atol=1e-9)


def test_joint_with_a_limit_of_zero_stands_still_in_a_stop() -> None:
    limits = make_controller("panda").limits
    still = replace(limits, acceleration=np.array([0.0, *limits.acceleration[1:]]))
    stop = stop_positions(np.zeros(7), np.full(7, 0.5), np.zeros(7), still, 0.004)
    assert np.all(stop[:, 0] == 0.0)
    assert np.all(stop[-1, 1:] > 0.0)


# Trajectories, as joint_trajectory_controller follows them


@dataclass(frozen=True)
class Heard:
    """A trajectory and the time at which it came into force."""

    at_ns: int
    points: JointPoints


def follow(heard: list[Heard], positions: FloatArray, until_ns: int) -> tuple[FloatArray, FloatArray]:
    """Times, ns, and positions of an arm at 1 kHz that was at rest and replaced its trajectory at each arrival."""
    times_ns, rows = [], []
    for index, (now, later) in enumerate(itertools.pairwise([*heard, None])):
        assert now is not None
        end_ns = until_ns if later is None else later.at_ns
        start_ns = -(-now.at_ns // MS) * MS
        due_ns = np.arange(start_ns, end_ns, MS)
        if not len(due_ns):
            continue
        points = now.points
        due_s = 1e-9 * (due_ns - points.stamp_ns)
        offsets_s = 1e-9 * np.array(points.offsets_ns)
        assert index == 0 or due_s[0] >= offsets_s[0], "an arm would have to make up what comes before its first point"
        derivatives = np.stack([points.positions, points.velocities, points.accelerations], axis=1)
        curve = BPoly.from_derivatives(offsets_s, derivatives)
        sampled = np.where(
            (due_s < offsets_s[-1])[:, None], curve(np.minimum(due_s, offsets_s[-1])), points.positions[-1]
        )
        times_ns.append(due_ns)
        rows.append(np.where((due_s < offsets_s[0])[:, None], positions, sampled))
    return np.concatenate(times_ns), np.concatenate(rows)


class Line:
    """A controller whose trajectories come to an arm after a while."""

    def __init__(self, robot: str, rng: np.random.Generator, rate_hz: float = 250.0, **command: float) -> None:
        self.controller = make_controller(robot, rate_hz)
        config = replace(POSITION, interface="trajectory", **command)
        self.sender = make_sender(config, self.controller)
        self.period_ns = round(1e9 / rate_hz)
        self.stamp_ns = self.now_ns = 0
        self.state = self.controller.init(self.controller.model.home)
        self.sender.begin(self.state, self.stamp_ns)
        while self.sender.approach(self.stamp_ns) is not None:
            self.stamp_ns += self.period_ns
        self.heard: list[Heard] = []
        self.sent: list[tuple[int, JointCommand]] = []
        self._rng, self._targets = rng, wild_targets(self.controller, rng)

    def tick(self, is_newest: bool = True) -> None:
        self.now_ns = max(self.now_ns, self.stamp_ns)
        self.state, is_late = self.sender.resume(self.state, self.stamp_ns, self.now_ns)
        target = next(self._targets)
        self.state, command, _ = self.controller.step(self.state, None if is_late else target, self.controller.dt_s)
        sending = self.sender.send(self.state, command, self.stamp_ns, is_newest)
        if sending is not None:
            self._hear(sending)
        self.stamp_ns += self.period_ns

    def stall(self, ticks: int) -> None:
        """Stands still for so many ticks, then makes up for them in a row, as the loop does."""
        self.now_ns = self.stamp_ns + ticks * self.period_ns
        for left in range(ticks, -1, -1):
            self.tick(is_newest=left == 0)

    def _hear(self, sending: Sending) -> None:
        assert isinstance(sending.content, JointPoints)
        before_ns = self.heard[-1].at_ns if self.heard else 0
        at_ns = max(before_ns, self.now_ns + int(self._rng.integers(0, 18 * MS)))
        self.heard.append(Heard(at_ns, sending.content))
        self.sent.extend(sending.ticks)

    def judge_arm(self) -> None:
        """Holds what the arm makes of it against the limits, until well after the last trajectory."""
        model = self.controller.model
        times_ns, positions = follow(self.heard, model.home, self.stamp_ns + 1_500 * MS)
        report = judge_limits(times_ns, positions, model)
        assert report.is_clean, [str(item) for item in report.first_violations.values()]
        assert report.peak_acceleration_fraction > 0.5, "for want of trying"
        assert np.all(positions[-100:] == positions[-1])

    def judge_commands(self) -> None:
        """Holds what is said to have been sent against the limits."""
        stamps, commands = zip(*self.sent, strict=True)
        report = judge_limits(
            np.array(stamps), np.array([command.positions for command in commands]), self.controller.model
        )
        assert report.is_clean, [str(item) for item in report.first_violations.values()]


@pytest.mark.parametrize(
    ("robot", "rate_hz", "command"),
    [
        ("panda", 250.0, {}),
        ("ur5e", 250.0, {}),
        ("panda", 500.0, {}),
        ("ur5e", 500.0, {"trajectory_rate_hz": 100.0, "trajectory_lead_s": 0.04}),
    ],
)
def test_arm_that_follows_trajectories_keeps_every_limit_and_comes_to_rest_when_they_end(
    robot: str, rate_hz: float, command: dict[str, float]
) -> None:
    for seed in range(2):
        line = Line(robot, np.random.default_rng(seed), rate_hz, **command)
        for _ in range(400 + seed * 37):
            line.tick()
        line.judge_arm()
        line.judge_commands()


@pytest.mark.parametrize("robot", ROBOTS)
def test_stalls_of_any_length_leave_the_arm_inside_its_limits(robot: str) -> None:
    rng = np.random.default_rng(5)
    line = Line(robot, rng)
    for _ in range(25):
        for _ in range(int(rng.integers(1, 60))):
            line.tick()
        line.stall(int(rng.choice([3, 8, 12, 20, 60, 140])))
    line.judge_arm()
    line.judge_commands()


def test_arm_carries_a_command_out_the_lead_after_its_tick() -> None:
    line = Line("panda", np.random.default_rng(3))
    for _ in range(500):
        line.tick()
    times_ns, positions = follow(line.heard, line.controller.model.home, line.stamp_ns)
    at = {int(time): row for time, row in zip(times_ns, positions, strict=True)}
    # Not the last, whose successors the arm hasn't heard of.
    known = [(stamp + 60 * MS, command) for stamp, command in line.sent[50:-30]]
    # A spline passes its control points by a sixth of their bend.
    bend_rad = line.controller.model.acceleration * line.controller.dt_s**2
    for time_ns, command in known:
        assert np.all(np.abs(at[time_ns] - command.positions) <= bend_rad / 6.0 + 1e-9)
    assert np.ptp([command.positions for _, command in known], axis=0).max() > 0.1


def test_every_trajectory_ends_at_rest_within_the_position_limits() -> None:
    line = Line("ur5e", np.random.default_rng(4))
    for _ in range(600):
        line.tick()
    model = line.controller.model
    for heard in line.heard:
        assert not heard.points.velocities[-1].any()
        assert not heard.points.accelerations[-1].any()
        assert np.all((heard.points.positions >= model.lower) & (heard.points.positions <= model.upper))
        assert np.all(np.diff(heard.points.offsets_ns) > 0)
    rate_hz = 1e9 * (len(line.heard) - 1) / (line.heard[-1].points.stamp_ns - line.heard[0].points.stamp_ns)
    assert rate_hz == pytest.approx(50.0, rel=0.03)


def test_first_word_to_an_arm_leads_it_to_where_the_commands_begin_and_nothing_moves_meanwhile() -> None:
    controller = make_controller("panda")
    sender = TrajectoryStream(controller, 50.0, 0.06)
    state = controller.init(controller.model.home)
    sender.begin(state, 10 * MS)
    said = [sender.approach(10 * MS + tick * 4 * MS) for tick in range(200)]
    waits = [sending is not None for sending in said]
    assert waits == sorted(waits, reverse=True)
    assert 0.2 <= 0.004 * sum(waits) <= 0.5
    points = [sending.content for sending in said if sending is not None and sending.content is not None]
    assert points
    for content in points:
        assert isinstance(content, JointPoints)
        np.testing.assert_array_equal(content.positions, controller.model.home[None])
        assert not content.velocities.any()
        # All of them name one and the same time, so that a repetition changes nothing.
        assert content.stamp_ns + content.offsets_ns[0] == 310 * MS


def test_lead_too_short_for_the_rate_is_refused() -> None:
    config = replace(POSITION, interface="trajectory", trajectory_lead_s=0.03)
    with pytest.raises(ConfigError, match=r"trajectory_lead_s: 0\.03 s is too short"):
        make_sender(config, make_controller("panda"))


# The others


def test_velocities_held_for_a_tick_end_where_the_commands_do() -> None:
    controller = make_controller("ur5e")
    sender = make_sender(replace(POSITION, interface="velocity", velocity_watchdog_s=0.1), controller)
    state = controller.init(controller.model.home)
    sender.begin(state, 0)
    positions = controller.model.home.copy()
    for tick, target in enumerate(itertools.islice(wild_targets(controller, np.random.default_rng(6)), 600)):
        state, command, _ = controller.step(state, target, controller.dt_s)
        sending = sender.send(state, command, tick * 4 * MS, True)
        assert sending is not None
        assert np.all(np.abs(sending.content) <= controller.model.velocity)
        positions = positions + controller.dt_s * sending.content
        np.testing.assert_allclose(positions, command.positions, atol=1e-9)
        assert sending.ticks == ((tick * 4 * MS, command),)


@pytest.mark.parametrize("interface", ["velocity", "twist"])
def test_what_leaves_after_missed_ticks_is_no_faster_than_the_last_tick(interface: str) -> None:
    controller = make_controller("panda")
    sender = make_sender(replace(POSITION, interface=interface, velocity_watchdog_s=0.1), controller)
    state = controller.init(controller.model.home)
    sender.begin(state, 0)
    goal = JointTarget(0, controller.model.home + 0.2, np.zeros(7))
    before = state.command.positions
    for tick in range(40):
        before = state.command.positions
        state, command, _ = controller.step(state, goal, controller.dt_s)
        sending = sender.send(state, command, tick * 4 * MS, tick % 10 == 9)
    assert sending is not None
    if interface == "velocity":
        expected = (command.positions - before) / controller.dt_s
    else:
        fk = controller.model.forward_kinematics
        expected = pose_error(fk(before), fk(command.positions)) / controller.dt_s
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(sending.content, expected, atol=1e-12)


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
@pytest.mark.parametrize("interface", ["velocity", "twist"])
def test_arm_that_only_hears_velocities_ends_where_the_commands_do_though_some_are_lost(
    robot: str, interface: str
) -> None:
    controller = make_controller(robot)
    model = controller.model
    sender = make_sender(replace(POSITION, interface=interface, velocity_watchdog_s=0.1), controller)
    state = controller.init(model.home)
    sender.begin(state, 0)
    rng = np.random.default_rng(8)
    positions, fk = model.home.copy(), model.forward_kinematics
    goal = JointTarget(0, model.home + rng.uniform(-0.2, 0.2, len(model.home)), np.zeros(len(model.home)))
    gaps = []
    for tick in range(2500):
        sender.observe(positions)
        state, command, _ = controller.step(state, goal, controller.dt_s)
        sending = sender.send(state, command, tick * 4 * MS, True)
        assert sending is not None
        # A third is lost on the way while it moves.
        if tick > 500 or rng.random() > 0.33:
            twist_to_joints = np.linalg.pinv(model.jacobian(positions))
            velocities = sending.content if interface == "velocity" else twist_to_joints @ sending.content
            positions = positions + controller.dt_s * velocities
        ends = fk(positions), fk(command.positions)
        gap = command.positions - positions if interface == "velocity" else pose_error(*ends)
        gaps.append(float(np.abs(gap).max()))
    assert max(gaps) > 0.02
    assert gaps[-1] < 0.001


def test_velocity_without_a_watchdog_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"names no watchdog.*velocity_watchdog_s"):
        make_sender(replace(POSITION, interface="velocity"), make_controller("ur5e"))


def test_cartesian_interface_sends_the_guarded_motions_own_pose() -> None:
    controller = make_controller("panda")
    sender = make_sender(replace(POSITION, interface="cartesian"), controller)
    for state, command in moving_commands("panda", np.random.default_rng(7), 3):
        sending = sender.send(state, command, 0, True)
        assert sending is not None
        np.testing.assert_array_equal(sending.content, controller.model.forward_kinematics(command.positions))


@pytest.mark.parametrize("interface", ["position", "velocity", "cartesian", "twist"])
def test_missed_ticks_are_not_sent(interface: str) -> None:
    controller = make_controller("panda")
    sender = make_sender(replace(POSITION, interface=interface, velocity_watchdog_s=0.1), controller)
    state = controller.init(controller.model.home)
    sender.begin(state, 0)
    state, command, _ = controller.step(state, None, controller.dt_s)
    assert sender.send(state, command, 0, False) is None
    assert sender.send(state, command, 4 * MS, True) is not None


def test_interface_without_a_topic_is_refused_and_names_the_others() -> None:
    config = CommandConfig("position", "a/commands", {"trajectory": "b/joint_trajectory"})
    assert config.using("") is config
    chosen = config.using("trajectory")
    assert (chosen.interface, chosen.topic) == ("trajectory", "b/joint_trajectory")
    assert chosen.using("position").topic == "a/commands"
    with pytest.raises(ConfigError, match="'velocity' isn't one of this robot's; choose from: position, trajectory"):
        config.using("velocity")
