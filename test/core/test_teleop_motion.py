"""Teleoperation's target and chunks as the safety filter takes them: smooth, prompt, bounded, at rest in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.errors import ConfigError
from vla_ros.geometry import rotations, se3
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.teleop.config import TeleopConfig
from vla_ros.teleop.frames import frame_axes, in_base
from vla_ros.teleop.motion import Leg, Motion, MotionLimits, Path
from vla_ros.teleop.operator_input import OperatorInput
from vla_ros.teleop.state import ArmView, TeleopState
from vla_ros.teleop.teleoperator import Teleoperator
from vla_ros.teleop.windup import near, slowed
from vla_ros.types import FloatArray, MotionState, RobotState, ToolChunk

CONFIG = load(TeleopConfig, package_share() / "config" / "teleop.yaml")
SAFETY = load(SafetyConfig, package_share() / "config" / "safety.yaml")
TICK_NS = 4_000_000
START = se3.make_pose(np.array([0.45, 0.0, 0.4]), rotations.rotvec_to_matrix(np.array([np.pi, 0.0, 0.0])))
LIMITS = MotionLimits((1.2, 3.5), (20.0, 60.0))


def push(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0, **more: object) -> OperatorInput:
    """A stick with the dead-man switch held."""
    return OperatorInput(True, np.array([x, y, z, 0.0, 0.0, yaw]), **more)  # type: ignore[arg-type]


def view(T_base_tcp: FloatArray, **more: object) -> ArmView:
    return ArmView(T_base_tcp, np.zeros(6), **more)  # type: ignore[arg-type]


@dataclass
class Stand:
    """Teleoperation, the real filter, and an arm that is where it was told to be some ticks later."""

    lead_s: float = 0.0
    lag_ticks: int = 8
    poses: list[FloatArray] = field(default_factory=lambda: [START])
    acted: list[str] = field(default_factory=list)
    chunks: list[ToolChunk] = field(default_factory=list)
    states: list[MotionState] = field(default_factory=list)

    def run(self, said: Callable[[float], OperatorInput | None], duration_s: float) -> Stand:
        """Asks the operator every 8 ms; None is a node that is dead."""
        robot = load_robot("panda")
        model = RobotModel.from_config(robot)
        states = JointStateBuffer(2000)
        limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        config = replace(SAFETY, actuation_latency_s=self.lead_s)
        safety = SafetyFilter(config, robot.tool, lambda _q: self.measured, limits)
        safety.select_source("teleop", 0)
        teleoperator = Teleoperator(CONFIG, self.lead_s)
        state, now_ns = teleoperator.begin("base"), 10_000_000_000
        for _ in range(50):
            states.append(RobotState(now_ns, model.home, np.zeros(7)))
            now_ns += TICK_NS
        begin_ns = now_ns
        for tick in range(round(duration_s * 1e9) // TICK_NS):
            now_ns = begin_ns + tick * TICK_NS
            states.append(RobotState(now_ns, model.home, np.zeros(7)))
            wish = said(tick * TICK_NS * 1e-9) if tick % 2 == 0 else None
            if wish is not None:
                state, chunk = teleoperator.step(state, wish, view(self.measured), now_ns)
                if chunk is not None:
                    self.chunks.append(chunk)
                    safety.offer(chunk, now_ns, states)
            target, verdict = safety.step(now_ns, TICK_NS * 1e-9, states.newest())
            self.poses.append(self.poses[-1] if target is None else target.T_base_tcp)
            self.states.append(verdict.state)
            if verdict.state is MotionState.RUNNING:
                self.acted += [item.reason for item in verdict.interventions]
        return self

    @property
    def measured(self) -> FloatArray:
        return self.poses[max(0, len(self.poses) - 1 - self.lag_ticks)]

    def rates(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Velocity, acceleration and jerk of the tcp by differences."""
        p = np.array([T[:3, 3] for T in self.poses])
        v = np.diff(p, axis=0) / (TICK_NS * 1e-9)
        a = np.diff(v, axis=0) / (TICK_NS * 1e-9)
        return v, a, np.diff(a, axis=0) / (TICK_NS * 1e-9)


def peak(vectors: FloatArray) -> float:
    return float(np.linalg.norm(vectors, axis=1).max())


@pytest.mark.parametrize("lead_s", [0.0, 0.06])
@pytest.mark.parametrize("speed", [0.4, 1.0])
def test_moving_stick_passes_the_filter_untouched_and_as_smooth_as_configured(speed: float, lead_s: float) -> None:
    def said(t: float) -> OperatorInput:
        if not 0.02 < t < 2.5:
            return OperatorInput()
        return replace(push(y=np.sin(np.pi * t), z=0.3, yaw=0.5 * np.cos(3.0 * t)), speed=speed)

    stand = Stand(lead_s).run(said, 5.0)
    assert stand.acted == []
    v, a, j = stand.rates()
    # 2 % for what splines through points and the seams add.
    assert 0.9 * speed < peak(v) / CONFIG.linear_m_s < 1.02 * speed
    assert peak(a) < 1.02 * CONFIG.acceleration_m_s2
    # The seam's and the spline's share: a stick's steps are smoothed over a few points of 25 ms.
    assert peak(j) < 2.0 * CONFIG.jerk_m_s3
    assert stand.states[-1] is MotionState.HOLDING


@pytest.mark.parametrize("lead_s", [0.0, 0.06])
def test_stick_that_reverses_moves_the_tool_within_a_twentieth_of_a_second_and_release_stops_it(lead_s: float) -> None:
    stand = Stand(lead_s).run(lambda t: push(y=1.0 if t < 1.0 else -1.0) if 0.02 < t < 2.0 else OperatorInput(), 3.0)
    y_speed = stand.rates()[0][:, 1]
    full = 0.4 * CONFIG.linear_m_s
    assert y_speed[250] == pytest.approx(full, rel=0.02)
    # 25 ms to the next point, and the ramp: it has begun after 50 ms, and is over in dv / a + a / j and those.
    assert y_speed[250 + 13] < 0.98 * full
    assert y_speed[250 + 80] == pytest.approx(-full, rel=0.02)
    assert abs(y_speed[500 + 60 :]).max() < 1e-3
    assert stand.acted == []


def test_node_that_dies_leaves_a_chunk_that_brakes_by_itself() -> None:
    stand = Stand().run(
        lambda t: push(y=1.0, speed=1.0) if 0.02 < t < 1.0 else (OperatorInput() if t < 0.02 else None), 2.0
    )
    v, a, _ = stand.rates()
    assert v[250, 1] == pytest.approx(CONFIG.linear_m_s, rel=0.02)
    assert peak(v[250 + 130 :]) < 1e-4
    assert peak(a) < 1.02 * CONFIG.acceleration_m_s2
    assert stand.acted == []
    assert stand.states[-1] is MotionState.HOLDING


def test_every_chunk_ends_at_rest_and_goes_on_from_the_one_before() -> None:
    stand = Stand().run(lambda t: push(y=np.sin(9.0 * t), yaw=np.cos(5.0 * t)) if t > 0.02 else OperatorInput(), 1.0)
    assert len(stand.chunks) == pytest.approx(40, abs=2)
    for chunk in stand.chunks:
        assert np.linalg.norm(chunk.transforms[-1, :3, 3] - chunk.transforms[-2, :3, 3]) < 2e-4
        assert chunk.time_from_start_s[-1] < 0.7
    for before, after in zip(stand.chunks[8:], stand.chunks[9:], strict=False):
        assert after.stamp_ns - before.stamp_ns == 25_000_000
        # The four points before the newest are what was said then.
        np.testing.assert_allclose(after.transforms[:5], before.transforms[1:6], atol=1e-12)


# Engaging


class Steps:
    """The teleoperator alone, stepped by a test every 25 ms."""

    def __init__(self, frame: str = "base") -> None:
        self.teleoperator = Teleoperator(CONFIG)
        self.state: TeleopState = self.teleoperator.begin(frame)
        self.now_ns = 1_000_000_000

    def step(self, said: OperatorInput, arm: ArmView | None) -> ToolChunk | None:
        self.now_ns += 25_000_000
        self.state, chunk = self.teleoperator.step(self.state, said, arm, self.now_ns)
        return chunk

    def last(self, said: OperatorInput, arm: ArmView, count: int) -> ToolChunk:
        for _ in range(count):
            chunk = self.step(said, arm)
        assert chunk is not None
        return chunk


def test_nothing_is_sent_until_the_switch_was_seen_released_and_is_held() -> None:
    steps = Steps()
    assert steps.step(push(x=1.0), view(START)) is None
    assert "let go of the dead-man switch first" in steps.state.notice
    assert steps.step(OperatorInput(), view(START)) is None
    assert steps.step(push(x=1.0), None) is None
    assert "no joint state" in steps.state.notice
    assert steps.step(push(x=1.0), view(START)) is None
    steps.step(OperatorInput(), view(START))
    assert steps.step(push(x=1.0), view(START)) is not None
    assert steps.step(OperatorInput(sticks=np.ones(6)), view(START)) is not None  # brakes
    assert steps.step(OperatorInput(sticks=np.ones(6)), view(START)) is None


def test_failing_device_lets_go_and_has_to_be_released_before_it_leads_again() -> None:
    steps = Steps()
    steps.step(OperatorInput(), view(START))
    steps.step(push(x=1.0), view(START))
    assert steps.step(OperatorInput(problem="unplugged"), view(START)) is not None
    assert steps.state.notice == "unplugged"
    assert steps.step(push(x=1.0), view(START)) is None
    steps.step(OperatorInput(), view(START))
    assert steps.step(push(x=1.0), view(START)) is not None


def test_lead_goes_on_from_the_last_target_unless_somebody_else_moved_the_arm() -> None:
    steps = Steps()
    steps.step(OperatorInput(), view(START))
    steps.last(push(x=1.0), view(START), 10)
    released = steps.step(OperatorInput(), view(START))
    assert released is not None
    target = released.transforms[-1]
    sagging = target.copy()
    sagging[2, 3] -= 0.004  # a real arm hangs a little below its target
    for _ in range(30):
        steps.step(OperatorInput(), view(sagging))
    again = steps.last(push(), view(sagging), 2)
    np.testing.assert_allclose(again.transforms[-1], target, atol=1e-9)
    for _ in range(30):
        steps.step(OperatorInput(), view(sagging))
    np.testing.assert_allclose(steps.last(push(), view(sagging, is_others=True), 2).transforms[-1], sagging, atol=1e-9)


def test_takeover_of_a_moving_arm_goes_on_with_its_speed_and_brakes() -> None:
    steps = Steps()
    steps.step(OperatorInput(), view(START))
    moving = ArmView(START, np.array([0.0, 0.2, 0.0, 0.0, 0.0, 0.0]), is_others=True)
    chunk = steps.step(push(), moving)
    assert chunk is not None
    # v^2 / 2a, and v a / 2j for the ramps, with 0.9 of the acceleration along the way: 20 to 25 mm.
    assert 0.018 < chunk.transforms[-1, 1, 3] < 0.030
    np.testing.assert_allclose(chunk.transforms[-1, [0, 2], 3], START[[0, 2], 3], atol=1e-9)


# Speeds, gripper


def test_speed_steps_stay_on_the_ladder_and_scale_the_motion() -> None:
    def way_m(commands: int) -> float:
        steps = Steps()
        steps.step(OperatorInput(commands=("slower" if commands < 0 else "faster",) * abs(commands)), view(START))
        before = steps.last(push(x=1.0), view(START), 10).transforms[0, 0, 3]
        after = steps.step(push(x=1.0), view(se3.compose_base(START, se3.make_pose(np.array([before - 0.45, 0, 0])))))
        assert after is not None
        return float(after.transforms[4, 0, 3] - after.transforms[3, 0, 3])

    # Levels 0.1, 0.2, 0.4 (at first), 0.7, 1.0 of 0.25 m/s over 25 ms; reached after 0.25 s for the slow ones.
    assert way_m(-9) == pytest.approx(0.1 * 0.25 * 0.025, rel=0.01)
    assert way_m(-1) == pytest.approx(0.2 * 0.25 * 0.025, rel=0.01)


def test_diagonal_stick_is_not_faster() -> None:
    stand = Stand().run(lambda t: push(1.0, 1.0, 1.0, speed=0.4) if t > 0.02 else OperatorInput(), 1.2)
    assert peak(stand.rates()[0]) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    ("commanded", "measured", "expected"), [(1.0, 0.5, 0.0), (0.0, 0.5, 1.0), (None, 0.5, 1.0), (None, 0.95, 0.0)]
)
def test_gripper_toggles_from_what_was_commanded_and_is_left_alone_before(commanded, measured, expected) -> None:
    steps, arm = Steps(), view(START, commanded_opening=commanded, measured_opening=measured)
    steps.step(OperatorInput(), arm)
    chunk = steps.step(push(), arm)
    assert chunk is not None
    assert chunk.openings is None
    steps.step(OperatorInput(commands=("gripper",)), arm)  # not held
    assert steps.state.opening is None
    chunk = steps.step(push(commands=("gripper",)), arm)
    assert chunk is not None
    assert chunk.openings is not None
    assert set(chunk.openings) == {expected}


def test_trigger_leads_the_gripper_only_once_it_is_moved_while_held() -> None:
    """An open trigger that only rests must not drop the block that a policy has just picked up."""
    steps, arm = Steps(), view(START, commanded_opening=0.0, is_others=True)
    steps.step(OperatorInput(lever=1.0), arm)
    chunk = steps.last(push(lever=0.97), arm, 5)
    assert chunk.openings is None
    for lever in (0.5, 0.97):  # Back where it stood: it is asked for now.
        chunk = steps.last(push(lever=lever), arm, 5)
        assert chunk.openings is not None
        assert set(chunk.openings) == {lever}
    silent = Steps()
    silent.step(OperatorInput(), arm)
    silent.step(push(), arm)
    chunk = silent.last(push(lever=0.2), arm, 5)  # A sender that tells changes alone.
    assert chunk.openings is not None
    assert set(chunk.openings) == {0.2}


def test_change_of_the_gripper_outlives_a_tap() -> None:
    """The filter may put a change off by 0.3 s after the last one, and forgets it with the chunk."""
    steps = Steps()
    steps.step(OperatorInput(), view(START))
    chunk = steps.step(push(commands=("close",)), view(START))
    assert chunk is not None
    assert chunk.time_from_start_s[-1] - 0.1 >= 0.3 + 0.04


# Anti-windup


def test_target_stays_within_the_limit_of_an_arm_that_is_blocked() -> None:
    steps = Steps()
    steps.step(OperatorInput(), view(START))
    chunk = steps.last(push(x=1.0, yaw=1.0, speed=1.0), view(START), 120)
    gap = se3.pose_error(START, chunk.transforms[4])
    # Where the arm would be by then, moving as told, counts: at rest by now.
    assert 0.8 * CONFIG.windup_m < np.linalg.norm(gap[:3]) <= CONFIG.windup_m + 1e-9
    assert 0.8 * CONFIG.windup_rad < np.linalg.norm(gap[3:]) <= CONFIG.windup_rad + 1e-9
    assert CONFIG.windup_m < SAFETY.tracking_tolerance_m
    assert CONFIG.windup_rad < SAFETY.tracking_tolerance_rad


def test_slowing_takes_only_what_leads_away() -> None:
    target = se3.compose_base(START, se3.make_pose(np.array([0.05, 0.0, 0.0])))
    velocity = np.array([0.1, 0.2, 0.0, 0.0, 0.0, 0.3])
    np.testing.assert_allclose(slowed(velocity, target, START, (0.05, 0.3)), [0.0, 0.2, 0.0, 0.0, 0.0, 0.3], atol=1e-12)
    np.testing.assert_allclose(slowed(-velocity, target, START, (0.05, 0.3)), -velocity)
    # Free up to 0.6 of the limit, then linearly less: at 0.8 half of it.
    half = se3.compose_base(START, se3.make_pose(np.array([0.04, 0.0, 0.0])))
    np.testing.assert_allclose(slowed(velocity, half, START, (0.05, 0.3))[:3], [0.05, 0.2, 0.0], atol=1e-12)


def test_target_that_is_far_off_is_brought_near_without_its_speed_away() -> None:
    turned = se3.compose_base(
        START, se3.make_pose(np.array([0.0, 0.2, 0.0]), rotations.rotvec_to_matrix(np.array([0.0, 0.0, 1.0])))
    )
    motion = near(Motion(turned, np.array([0.1, 0.3, 0.0, 0.2, 0.0, 0.5]), np.ones(6)), START, (0.05, 0.3))
    np.testing.assert_allclose(se3.pose_error(START, motion.T_base_tcp), [0.0, 0.05, 0.0, 0.0, 0.0, 0.3], atol=1e-12)
    np.testing.assert_allclose(motion.velocity, [0.1, 0.0, 0.0, 0.2, 0.0, 0.0], atol=1e-12)


# Frames


def test_camera_view_moves_along_the_image_as_its_viewer_sees_it() -> None:
    # Across the table, looking back along -x and level: forward for its viewer is the robot's -x, left its -y.
    T_base_cam = se3.make_pose(np.zeros(3), np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
    R = frame_axes("camera", START, T_base_cam)
    np.testing.assert_allclose(R, np.diag([-1.0, -1.0, 1.0]), atol=1e-12)
    # Straight down from above, image right along the robot's -y: into the image is down, up in the image is +x.
    T_base_cam = se3.make_pose(np.zeros(3), np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]))
    said = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    expected = [0.0, 0.0, -1.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(in_base(said, frame_axes("camera", START, T_base_cam)), expected, atol=1e-12)


def test_tool_frame_turns_with_the_tool_and_base_does_not() -> None:
    # Tool down: its x is the robot's, its y and z are turned round.
    said = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    expected = [0.1, -0.2, -0.3, 0.4, -0.5, -0.6]
    np.testing.assert_allclose(in_base(said, frame_axes("tcp", START, None)), expected, atol=1e-12)
    np.testing.assert_allclose(in_base(said, frame_axes("base", START, None)), said)
    with pytest.raises(ConfigError, match="camera's pose isn't known"):
        frame_axes("camera", START, None)


def test_frame_command_goes_round_and_leaves_out_a_camera_that_is_not_there() -> None:
    steps = Steps()
    frames = []
    for arm in (view(START), view(START), view(START, T_base_cam=np.eye(4)), view(START, T_base_cam=np.eye(4))):
        steps.step(OperatorInput(commands=("frame",)), arm)
        frames.append(steps.state.frame)
    assert frames == ["tcp", "base", "tcp", "camera"]


# Motion


@pytest.mark.parametrize("seed", range(8))
def test_leg_is_the_integral_of_its_own_rates_and_keeps_its_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = Motion(START, 0.2 * rng.standard_normal(6), np.zeros(6))
    leg = Leg(start, 0.2 * rng.standard_normal(6), LIMITS)
    h = 1e-3
    times = np.arange(0.0, leg.duration_s + 0.05, h)
    motions = [leg.at(t) for t in times.tolist()]
    v = np.array([m.velocity for m in motions])
    p = np.array([m.T_base_tcp[:3, 3] for m in motions])
    # Central differences: h^2 / 6 of the jerk.
    np.testing.assert_allclose((p[2:] - p[:-2]) / (2 * h), v[1:-1, :3], atol=20.0 * h**2)
    a = np.gradient(v, h, axis=0)[2:-2]
    assert np.linalg.norm(a[:, :3], axis=1).max() <= 1.2 * 1.001
    assert np.linalg.norm(a[:, 3:], axis=1).max() <= 3.5 * 1.001
    np.testing.assert_allclose(leg.at(leg.duration_s).velocity, leg.at(leg.duration_s + 1.0).velocity, atol=1e-9)


def test_path_rests_from_its_end_on_and_turns_about_one_axis_exactly() -> None:
    start = Motion(START, np.zeros(6), np.zeros(6))
    wanted = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.8])
    path = Path(start, 0, wanted, 0.5, LIMITS)
    end = path.at(round(path.duration_s * 1e9))
    np.testing.assert_allclose(end.velocity, np.zeros(6), atol=1e-12)
    np.testing.assert_allclose(end.T_base_tcp, path.at(10**12).T_base_tcp, atol=1e-9)
    # Ramps of S-shape up and down take the same way as half their time at full speed.
    a, j = 0.9 * 3.5, 0.9 * 60.0
    ramp_s = 0.8 / a + a / j
    angle = rotations.matrix_to_rotvec(end.T_base_tcp[:3, :3] @ START[:3, :3].T)
    np.testing.assert_allclose(angle, [0.0, 0.0, 0.8 * 0.5], atol=1e-9)
    assert path.duration_s == pytest.approx(0.5 + ramp_s)
