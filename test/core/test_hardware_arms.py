"""Drivers without ROS: controllers switched, commands followed only by the active one, stops and what undoes them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.control.config import ControllerConfig
from vla_ros.control.interfaces import make_sender
from vla_ros.control.sending import JointPoints
from vla_ros.errors import ConfigError
from vla_ros.hardware.commanded_motion import CommandedMotion
from vla_ros.hardware.controllers import FRANKA, FRANKA_ACTIVE, UR, UR_ACTIVE, ControllerManager, SwitchError
from vla_ros.hardware.driver_loop import DriverLoop
from vla_ros.hardware.fingers import FingerMotion, Way
from vla_ros.hardware.franka_arm import FrankaArm, RejectedError, RobotMode
from vla_ros.hardware.ur_arm import UNLOCK_AFTER_S, SafetyMode, UrArm
from vla_ros.robots.config import CommandConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.trajectory import DesiredState
from vla_ros.types import JointTarget

FR3, UR5E = load_robot("fr3"), load_robot("ur5e")
HOME = np.array([joint.home_rad for joint in FR3.joints])
UR_HOME = np.array([joint.home_rad for joint in UR5E.joints])
JTC, POSITION, VELOCITY = "joint_trajectory_controller", "forward_position_controller", "forward_velocity_controller"
SCALED = "scaled_joint_trajectory_controller"
TICK_S = 0.004


def active(manager: ControllerManager) -> set[str]:
    return {name for name in manager.controllers if manager.is_active(name)}


def test_nothing_moves_a_franka_at_first_and_the_trajectory_controller_a_ur() -> None:
    assert ControllerManager(FRANKA, FRANKA_ACTIVE).mover is None
    assert ControllerManager(UR, UR_ACTIVE).mover.name == SCALED


@pytest.mark.parametrize(
    ("on", "off", "text"),
    [
        (["no_such_controller"], [], "no controller with this name exists"),
        ([POSITION], [], "Resource conflict"),
        ([SCALED], [], "already active"),
        ([], [POSITION], "not active"),
        ([POSITION, VELOCITY], [SCALED], "Resource conflict"),
        ([POSITION, "no_such_controller"], [SCALED], "no controller with this name exists"),
    ],
)
def test_strict_switch_that_can_not_be_made_changes_nothing(on, off, text) -> None:
    manager = ControllerManager(UR, UR_ACTIVE)
    with pytest.raises(SwitchError, match=text):
        manager.switch(on, off, is_strict=True)
    assert active(manager) == set(UR_ACTIVE)


@pytest.mark.parametrize(
    ("on", "off", "mover"),
    [
        ([POSITION], [SCALED], POSITION),
        ([POSITION, "no_such_controller"], [SCALED], POSITION),
        ([SCALED], [VELOCITY], SCALED),
        ([], [SCALED], None),
        # What is named in both is begun anew.
        ([SCALED], [SCALED], SCALED),
    ],
)
def test_best_effort_switches_what_it_can(on, off, mover) -> None:
    manager = ControllerManager(UR, UR_ACTIVE)
    manager.switch(on, off, is_strict=False)
    assert (manager.mover.name if manager.mover else None) == mover


@pytest.mark.parametrize(("on", "off"), [(["nobody"], []), ([], ["nobody"]), ([POSITION], [])])
def test_best_effort_fails_when_nothing_is_known_or_the_joints_are_claimed(on, off) -> None:
    manager = ControllerManager(UR, UR_ACTIVE)
    with pytest.raises(SwitchError):
        manager.switch(on, off, is_strict=False)
    assert active(manager) == set(UR_ACTIVE)


def test_forward_controllers_repeat_their_last_command_for_ever() -> None:
    motion = CommandedMotion(HOME, "position")
    motion.take(HOME + 0.01)
    for _ in range(1000):
        np.testing.assert_array_equal(motion.step(0.001, 1.0), HOME + 0.01)
    motion = CommandedMotion(HOME, "velocity")
    motion.take([0.1] * 7)
    for _ in range(1000):
        wanted = motion.step(0.001, 1.0)
    np.testing.assert_allclose(wanted, HOME + 0.1)


@pytest.mark.parametrize("values", [[0.0] * 6, [0.0] * 6 + [math.nan], [math.inf] * 7])
def test_forward_command_that_does_not_fit_is_refused_and_the_last_one_stays(values) -> None:
    motion = CommandedMotion(HOME, "position")
    motion.take(HOME + 0.01)
    with pytest.raises(ConfigError):
        motion.take(values)
    np.testing.assert_array_equal(motion.step(0.001, 1.0), HOME + 0.01)


def straight(start: np.ndarray, goal: np.ndarray) -> DesiredState:
    points = np.array([start, goal])
    zeros = np.zeros_like(points)
    return DesiredState(points, zeros, zeros)


@pytest.mark.parametrize("speed", [1.0, 0.5, 0.0])
def test_speed_scaling_stretches_the_time_of_trajectories_and_of_nothing_else(speed) -> None:
    scaled = CommandedMotion(HOME, "trajectory")
    plain = CommandedMotion(HOME, "trajectory")
    for motion in (scaled, plain):
        motion.take_trajectory([0.1, 1.1], straight(HOME, HOME + 0.2))
    for step in range(1, 900):
        wanted = scaled.step(0.002, speed)
        if step % 2 == 0:
            expected = plain.step(0.002 * 2 * speed, 1.0)
            np.testing.assert_allclose(wanted, expected, atol=1e-12)
    velocity = CommandedMotion(HOME, "velocity")
    velocity.take([0.1] * 7)
    np.testing.assert_allclose(velocity.step(0.002, speed), HOME + 0.0002)


class Franka:
    """A Franka that follows its reference at once, told at 250 Hz."""

    def __init__(self) -> None:
        self.arm = FrankaArm(FR3)
        self.loop = DriverLoop(self.arm, HOME)
        self.positions = HOME

    def activate(self, name: str) -> None:
        self.arm.controllers.switch([name], [], is_strict=True)
        self.loop.settle(self.positions)

    def tick(self) -> np.ndarray:
        self.positions = self.loop.run(TICK_S, self.positions)
        return self.positions


def test_commands_move_nothing_until_their_controller_is_active() -> None:
    franka = Franka()
    franka.loop.settle(HOME)
    assert franka.loop.motion_of(POSITION) is None
    np.testing.assert_array_equal(franka.tick(), HOME)
    franka.activate(POSITION)
    assert franka.loop.motion_of(POSITION) is not None
    assert franka.loop.motion_of(JTC) is None
    assert franka.arm.mode is RobotMode.MOVE


def test_controller_that_is_activated_anew_forgets_its_last_command() -> None:
    franka = Franka()
    franka.activate(VELOCITY)
    franka.loop.motion_of(VELOCITY).take([0.009 * 0.001] * 7)
    franka.tick()
    assert np.abs(franka.tick() - HOME).max() > 0.0
    franka.arm.controllers.switch([VELOCITY], [VELOCITY], is_strict=True)
    at = franka.tick()
    np.testing.assert_array_equal(franka.tick(), at)


def test_staircase_stops_a_franka_and_recovery_lets_it_move_again() -> None:
    franka = Franka()
    franka.activate(POSITION)
    franka.loop.motion_of(POSITION).take(HOME)
    franka.tick()
    franka.loop.motion_of(POSITION).take(HOME + 0.0004)
    at = franka.tick()
    assert franka.arm.mode is RobotMode.REFLEX
    assert franka.arm.reflex.error == "joint_motion_generator_velocity_discontinuity"
    np.testing.assert_array_equal(at, HOME)
    assert franka.arm.controllers.mover is None
    with pytest.raises(SwitchError, match="error_recovery"):
        franka.arm.controllers.switch([JTC], [], is_strict=True)
    franka.arm.recover()
    assert franka.arm.mode is RobotMode.IDLE
    assert "joint_motion_generator_velocity_discontinuity" in franka.arm.last_errors
    franka.activate(JTC)
    franka.loop.motion_of(JTC).take_trajectory([0.0, 1.0], straight(HOME, HOME + 0.1))
    for _ in range(260):
        at = franka.tick()
    assert franka.arm.reflex is None
    np.testing.assert_allclose(at, HOME + 0.1, atol=1e-9)
    # By hand: the quintic's peak acceleration is 5.77 way / T^2 = 0.577 rad/s^2, of 10.
    assert franka.arm.limits.forget().acceleration >= 0.0577


@pytest.mark.parametrize("interface", ["trajectory", "position"])
def test_our_own_controller_passes_a_franka_as_trajectories_and_trips_it_as_positions(interface) -> None:
    """The same motion, at most of the limits: what it becomes at 1 kHz is all that differs."""
    controller = CartesianController(RobotModel.from_config(FR3), ControllerConfig(rate_hz=250.0))
    sender = make_sender(CommandConfig(interface, "commands"), controller)
    rng, tick_ns = np.random.default_rng(5), 4_000_000
    state, stamp_ns = controller.init(HOME), 0
    sender.begin(state, stamp_ns)
    while sender.approach(stamp_ns) is not None:
        stamp_ns += tick_ns
    franka, name = Franka(), {"trajectory": JTC, "position": POSITION}[interface]
    franka.activate(name)
    for tick in range(1500):
        if tick % 60 == 0:
            goal = HOME + rng.uniform(-0.4, 0.4, 7)
        state, _ = sender.resume(state, stamp_ns, stamp_ns)
        state, command, _ = controller.step(state, JointTarget(0, goal, np.zeros(7)), controller.dt_s)
        sending = sender.send(state, command, stamp_ns, True)
        motion = franka.loop.motion_of(name)
        if motion is None:
            break
        if sending is not None and isinstance(sending.content, JointPoints):
            points = sending.content
            times_s = [(points.stamp_ns + offset_ns - stamp_ns) * 1e-9 for offset_ns in points.offsets_ns]
            motion.take_trajectory(times_s, DesiredState(points.positions, points.velocities, points.accelerations))
        elif sending is not None:
            motion.take(np.asarray(sending.content))
        franka.tick()
        stamp_ns += tick_ns
    if interface == "position":
        assert franka.arm.reflex.error == "joint_motion_generator_velocity_discontinuity"
        return
    assert franka.arm.reflex is None, str(franka.arm.reflex)
    extremes = franka.arm.limits.extremes
    # For want of trying it would pass, too.
    assert 0.8 < extremes.acceleration <= 1.0 + 1e-4
    assert extremes.jerk <= 1.0 + 1e-4


def test_trajectory_that_jumps_is_a_reflex_too() -> None:
    franka = Franka()
    franka.activate(JTC)
    franka.loop.motion_of(JTC).take_trajectory([0.0, 1.0], straight(HOME + 0.01, HOME + 0.1))
    franka.tick()
    assert franka.arm.mode is RobotMode.REFLEX


def test_parameters_are_refused_while_a_franka_moves() -> None:
    franka = Franka()
    franka.arm.set_thresholds(np.full(7, 30.0))
    with pytest.raises(RejectedError, match="invalid argument"):
        franka.arm.set_thresholds(np.zeros(7))
    franka.activate(POSITION)
    with pytest.raises(RejectedError, match="not possible in the current mode"):
        franka.arm.set_thresholds(np.full(7, 30.0))


def test_outside_torque_past_the_threshold_is_a_joint_reflex() -> None:
    franka, torques, still = Franka(), np.zeros(7), np.zeros(7)
    franka.arm.set_thresholds(np.full(7, 30.0))
    franka.activate(POSITION)
    torques[3] = 29.0
    for _ in range(500):
        franka.arm.feel(HOME, still, torques)
    assert franka.arm.reflex is None
    torques[3] = -31.0
    for _ in range(500):
        franka.arm.feel(HOME, still, torques)
    assert franka.arm.reflex.error == "joint_reflex"
    assert franka.arm.reflex.joint == "fr3_joint4"


def test_protective_stop_stops_the_controllers_and_the_program_brings_the_same_ones_back() -> None:
    arm = UrArm(UR5E)
    arm.controllers.switch([POSITION], [SCALED], is_strict=True)
    before = active(arm.controllers)
    arm.protective_stop("speed of elbow_joint")
    assert arm.safety_mode is SafetyMode.PROTECTIVE_STOP
    assert not arm.is_program_running
    assert arm.speed == 0.0
    assert arm.controllers.mover is None
    arm.pass_time(UNLOCK_AFTER_S - 0.01)
    assert arm.unlock()[0] is False
    assert arm.start_program()[0] is False
    arm.pass_time(0.02)
    assert arm.unlock()[0] is True
    assert arm.safety_mode is SafetyMode.NORMAL
    assert arm.controllers.mover is None
    assert arm.start_program()[0] is True
    assert active(arm.controllers) == before
    assert arm.speed == 1.0


def test_ur_that_is_led_too_fast_stops_by_itself() -> None:
    arm = UrArm(UR5E)
    arm.controllers.switch([VELOCITY], [SCALED], is_strict=True)
    loop, positions = DriverLoop(arm, UR_HOME), UR_HOME
    loop.settle(positions)
    loop.motion_of(VELOCITY).take([4.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    for _ in range(100):
        positions = loop.run(TICK_S, positions)
    assert arm.safety_mode is SafetyMode.PROTECTIVE_STOP
    assert arm.reason == "speed of shoulder_pan_joint"
    stopped = positions
    np.testing.assert_array_equal(loop.run(TICK_S, positions), stopped)


def run_fingers(motion: FingerMotion, stop: float) -> tuple[Way, float, float]:
    """Fingers that are where they are told to be, but for something in the way; how, where and when they end."""
    measured, time_s = motion.command, 0.0
    for _ in range(1000):
        way = motion.step(TICK_S, measured)
        time_s += TICK_S
        if way is not Way.MOVING:
            break
        measured = max(motion.command, stop)
    return way, measured, time_s


def test_fingers_reach_what_nothing_holds_them_from_at_their_speed() -> None:
    way, at, time_s = run_fingers(FingerMotion(1.0, 0.2, 2.0), stop=0.0)
    assert way is Way.REACHED
    assert at == pytest.approx(0.2, abs=0.03)
    assert time_s == pytest.approx(0.4, abs=0.03)


def test_fingers_stall_at_what_is_between_them() -> None:
    way, at, _ = run_fingers(FingerMotion(1.0, 0.0, 2.0), stop=0.5)
    assert way is Way.STALLED
    assert at == 0.5


def test_slow_fingers_do_not_seem_to_stall() -> None:
    assert run_fingers(FingerMotion(1.0, 0.97, 0.012), stop=0.0)[0] is Way.REACHED
