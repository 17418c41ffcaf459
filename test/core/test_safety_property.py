"""What the filter promises whatever happens to it, searched by hypothesis; the judge sees poses by tick alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.config import load, package_share
from vla_ros.errors import ChunkError
from vla_ros.geometry import se3
from vla_ros.robots.config import ToolLimits
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import KeepOutPlane, KeepOutSphere, SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import FloatArray, JointChunk, JointTarget, MotionState, RobotState, ToolChunk, ToolTarget

NS = 1_000_000_000
DT_S = 0.004
TICK_NS = 4_000_000
HOME = np.array([0.45, 0.0, 0.3, np.pi - 0.1, 0.0, 0.0])
VELOCITY, ACCELERATION, JERK = (0.4, 1.2), (1.8, 5.0), (80.0, 250.0)
LOWER_M, UPPER_M = np.array([0.2, -0.4, 0.01]), np.array([0.7, 0.4, 0.7])
NORMAL = np.array([-0.6, 0.0, 0.8])
OFFSET_M = -0.1
CENTRE_M, RADIUS_M = np.array([0.45, 0.2, 0.3]), 0.1
CONFIG = replace(
    load(SafetyConfig, package_share() / "config" / "safety.yaml"),
    workspace_lower_m=tuple(LOWER_M.tolist()),
    workspace_upper_m=tuple(UPPER_M.tolist()),
    velocity_m_s=VELOCITY[0],
    angular_velocity_rad_s=VELOCITY[1],
    acceleration_m_s2=ACCELERATION[0],
    angular_acceleration_rad_s2=ACCELERATION[1],
    jerk_m_s3=JERK[0],
    angular_jerk_rad_s3=JERK[1],
    keep_out_planes=(KeepOutPlane("roof", (-3.0, 0.0, 4.0), OFFSET_M),),
    keep_out_spheres=(KeepOutSphere("lamp", tuple(CENTRE_M.tolist()), RADIUS_M),),
)
JOINTS = OffsetLimits(np.full(6, 1.5), np.full(6, 8.0), np.full(6, 800.0))


def forward_kinematics(q: FloatArray) -> FloatArray:
    return se3.make_pose(q[:3], Rotation.from_rotvec(q[3:]).as_matrix())


def joints_of(T_base_tcp: FloatArray) -> FloatArray:
    return np.concatenate([T_base_tcp[:3, 3], Rotation.from_matrix(T_base_tcp[:3, :3]).as_rotvec()])


def depth(p: FloatArray) -> float:
    """How deep in a forbidden region, m."""
    return max(
        float(np.max(p - UPPER_M)),
        float(np.max(LOWER_M - p)),
        OFFSET_M - float(NORMAL @ p),
        RADIUS_M - float(np.linalg.norm(p - CENTRE_M)),
    )


def exceedances(poses: FloatArray) -> list[str]:
    """Limits that a stretch of poses, from rest on, is past."""
    padded = np.concatenate([np.tile(poses[0], (3, 1, 1)), poses])
    turns = Rotation.from_matrix(padded[1:, :3, :3]) * Rotation.from_matrix(padded[:-1, :3, :3]).inv()
    values = np.hstack([np.diff(padded[:, :3, 3], axis=0), turns.as_rotvec()]) / DT_S
    found = []
    for order, limits in enumerate((VELOCITY, ACCELERATION, JERK), start=1):
        sizes = np.linalg.norm(values.reshape(-1, 2, 3), axis=2)
        # Poses are rounded to about 1e-15.
        if np.any(sizes > np.array(limits) * (1.0 + 1e-8) + 1e-14 * 2**order / DT_S**order):
            found.append(f"{'vaj'[order - 1]} {sizes.max(axis=0)} past {limits}")
        values = np.diff(values, axis=0) / DT_S
    return found


class Timeline(ChunkTimeline):
    """Remembers what it last said was due."""

    said: Sample | None = None

    def sample(self, time_ns: int) -> Sample | None:
        self.said = super().sample(time_ns)
        return self.said


SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([0.0, 0.003, 0.03, 0.5, 1e3, 1e200, np.nan, np.inf])
AGES_S = st.sampled_from([0.0, 0.004, 0.1, 0.3, 0.8, 1.5, -0.02, -3.0])


class Filtered(RuleBasedStateMachine):
    """A filter and an arm that is exactly where it was told to be."""

    def __init__(self) -> None:
        super().__init__()
        timeline = Timeline(1.0)
        self.filter = SafetyFilter(
            CONFIG, ToolLimits(9.0, 99.0, 999.0, 9.0, 99.0, 9999.0), forward_kinematics, JOINTS, timeline
        )
        self.timeline = timeline
        self.states = JointStateBuffer(512)
        self.q, self.now_ns = HOME, 1_700_000_000 * NS
        self.sent: list[ToolChunk | JointChunk] = []
        self.poses: list[FloatArray] = []
        self.rest: FloatArray | None = None
        self.was_joint = False
        self.filter.select_source("p", self.now_ns)
        self.tick(5)

    def tick(self, count: int, is_silent: bool = False, is_finite: bool = True) -> None:
        for _ in range(count):
            self.now_ns += TICK_NS
            measured = RobotState(self.now_ns, self.q if is_finite else np.full(6, np.nan), np.zeros(6))
            if is_finite and not is_silent:
                self.states.append(measured)
            self.timeline.said = None
            target, verdict = self.filter.step(self.now_ns, DT_S, self.states.newest() if is_finite else measured)
            assert verdict.state is self.filter.state
            assert verdict.state is MotionState.RUNNING or verdict.interventions[0].reason
            self.judge(target, is_named=bool(verdict.interventions))

    def judge(self, target: ToolTarget | JointTarget | None, is_named: bool) -> None:
        said, before_m = self.timeline.said, depth(self.q[:3])
        if isinstance(target, ToolTarget):
            T = target.T_base_tcp
            assert np.isfinite(T).all()
            assert se3.is_pose(T, tolerance=1e-9)
            assert is_named or (said is not None and np.array_equal(said.T_base_tcp, T))
            self.poses += [T] if self.poses else [forward_kinematics(self.q), T]
            self.q = joints_of(T)
        else:
            self.judge_poses()
        if isinstance(target, JointTarget):
            assert np.isfinite(target.positions).all()
            assert np.isfinite(target.velocities).all()
            assert is_named or (said is not None and np.array_equal(said.positions, target.positions))
            if self.was_joint:
                assert np.all(np.abs(target.positions - self.q) <= JOINTS.velocity * DT_S * (1 + 1e-9))
            self.q = target.positions
        if target is not None:
            assert target.gripper_opening is None or 0.0 <= target.gripper_opening <= 1.0
            assert self.filter.state is not MotionState.FAULT
        self.was_joint = isinstance(target, JointTarget)
        # Stops in joint space are looked at here and there, and a sphere bulges between.
        assert depth(self.q[:3]) < (1e-3 if self.was_joint else max(1e-9, before_m + 1e-12))
        is_stopped = self.filter.state is MotionState.STOPPED
        if is_stopped and self.rest is not None:
            np.testing.assert_array_equal(self.q, self.rest)
        velocities = getattr(target, "twist_tcp_in_base", getattr(target, "velocities", np.zeros(6)))
        self.rest = self.q if is_stopped and not np.any(velocities) else None

    def judge_poses(self) -> None:
        assert not self.poses or exceedances(np.array(self.poses)) == []
        self.poses.clear()

    def teardown(self) -> None:
        self.judge_poses()

    def offer(self, chunk: ToolChunk | JointChunk) -> None:
        self.sent.append(chunk)
        state = self.filter.state
        try:
            with np.errstate(all="ignore"):
                self.filter.offer(chunk, self.now_ns, self.states)
        except ChunkError:
            assert self.filter.state is state
        else:
            assert self.filter.state is MotionState.RUNNING

    @rule(seed=SEEDS, size=st.sampled_from([0.003, 0.02, 0.1]), joint_space=st.sampled_from([False, False, True]))
    def stream(self, seed: int, size: float, joint_space: bool) -> None:
        """Chunks as a policy sends them, if a bad one: each begins about where the arm is and overlaps the last."""
        self.recover()
        rng = np.random.default_rng(seed)
        for _ in range(6):
            if joint_space:
                self.joint_chunk(int(rng.integers(2**32)), size, 0.004 * rng.integers(40), 8)
            else:
                self.tool_chunk(int(rng.integers(2**32)), size, 0.004 * rng.integers(40), 8, "p")
            self.tick(int(rng.integers(1, 60)))

    @rule(seed=SEEDS, size=SIZES, age_s=AGES_S, count=st.integers(0, 12), source=st.sampled_from("pppq"))
    def tool_chunk(self, seed: int, size: float, age_s: float, count: int, source: str) -> None:
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            moves = np.cumsum(size * rng.normal(size=(count, 3)), axis=0)
            turns = Rotation.from_rotvec(min(3.0, 3.0 * abs(size)) * rng.normal(size=(count, 3))) if count else None
        frame = ("tcp", "base", "absolute")[rng.integers(3)]
        transforms = se3.make_pose(
            moves + (self.q[:3] if frame == "absolute" else 0.0), None if turns is None else turns.as_matrix()
        )
        openings = rng.integers(0, 2, count).astype(float) if rng.random() < 0.5 else None
        times_s = np.cumsum(rng.uniform(0.002, 0.2, count))
        self.offer(ToolChunk(self.now_ns - round(age_s * NS), frame, transforms, openings, times_s, source))

    @rule(seed=SEEDS, size=SIZES, age_s=AGES_S, count=st.integers(1, 12))
    def joint_chunk(self, seed: int, size: float, age_s: float, count: int) -> None:
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            positions = self.q + np.cumsum(size * rng.normal(size=(count, 6)), axis=0)
        times_s = np.cumsum(rng.uniform(0.002, 0.2, count))
        self.offer(JointChunk(self.now_ns - round(age_s * NS), positions, None, times_s, "p"))

    @precondition(lambda self: self.sent)
    @rule(index=st.integers(0, 99))
    def chunk_again(self, index: int) -> None:
        self.offer(self.sent[index % len(self.sent)])

    @rule(count=st.integers(1, 60))
    def go_on(self, count: int) -> None:
        self.tick(count)

    @rule()
    def recover(self) -> None:
        self.filter.reset(self.now_ns)
        self.rest = None
        self.filter.select_source("p", self.now_ns)
        self.tick(2)

    @rule(what=st.sampled_from(["stop", "task", "source", "pause", "silence", "not finite"]), count=st.integers(1, 90))
    def disturb(self, what: str, count: int) -> None:
        if what == "stop":
            self.filter.stop("button", self.now_ns)
        elif what == "task":
            self.filter.drop_chunks(self.now_ns, "task")
        elif what == "source":
            self.filter.select_source("q", self.now_ns)
        self.tick(1, is_finite=what != "not finite")
        self.tick(count // 4 if what == "pause" else count, is_silent=what in ("pause", "silence"))
        assert self.filter.state is MotionState.STOPPED or what != "stop"

    @rule(scaling=st.sampled_from([0.0, 0.3, 1.0, 1.0]), count=st.integers(1, 60))
    def arm_scales_its_speed(self, scaling: float, count: int) -> None:
        self.filter.timeline.scale(scaling)
        self.tick(count)

    @rule(jump_s=st.sampled_from([-20.0, -0.3, -0.01, 0.05, 0.6, 20.0]), is_cleared=st.booleans())
    def clock(self, jump_s: float, is_cleared: bool) -> None:
        self.now_ns += round(jump_s * NS)
        if is_cleared:
            self.states.clear()
        self.tick(3)
        self.states.clear()
        self.tick(1)


TestFiltered = Filtered.TestCase
TestFiltered.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
