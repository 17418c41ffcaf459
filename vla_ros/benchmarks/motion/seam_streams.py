"""Streams of noisy, late chunks, and the path from the timeline to the joints that they are sent down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.seams import Seam
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.benchmarks.motion.arms import controller_config, load_model
from vla_ros.config import load, package_share
from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.errors import ChunkError
from vla_ros.geometry import se3
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import FloatArray, JointTarget, RobotState, ToolChunk, ToolTarget

T0_NS = 1_763_800_000_000_000_000
WARM_UP_S = 2.0
POINTS = 16
_RAMP_S = 3.0
_PERIODS_S = (0.1, 1.0 / 15.0, 0.05)
# What `blend` may take where no filter grants it: 0.8 of 3 m/s^2 and 6 rad/s^2, which the Panda's joints can do nearly
# everywhere; m/s, rad/s and so on.
_BLEND_LIMITS = ((1.0, 2.0), (2.4, 4.8), (500.0, 1000.0))


@dataclass(frozen=True)
class Noise:
    """How far off a chunk's poses are, standard deviation along each axis.

    Attributes:
        position_m: of the whole chunk.
        rotation_rad: of the whole chunk.
        point_m: of each point on its own, on top.
    """

    position_m: float
    rotation_rad: float
    point_m: float = 0.0


@dataclass(frozen=True)
class Arrival:
    """A chunk and when it arrives, s from the start."""

    time_s: float
    chunk: ToolChunk


@dataclass(frozen=True)
class Run:
    """What came of a stream.

    Attributes:
        times_s: (t,) of the ticks.
        positions: (t, n) rad, commanded.
        p_tcp: (t, 3) m, forward kinematics of the command.
        seams_s: when chunks were taken.
        guard_share: part of the ticks in which the guard changed what was wanted.
        limits_share: part of the ticks in which any limit acted.
    """

    times_s: FloatArray
    positions: FloatArray
    p_tcp: FloatArray
    seams_s: list[float]
    guard_share: float
    limits_share: float


class Reference:
    """A smooth path that begins at home: swings of position, and half a turn about the vertical, back and forth."""

    def __init__(self, T_base_home: FloatArray, rng: np.random.Generator) -> None:
        self._home = T_base_home
        self._size = rng.uniform(0.02, 0.06, (2, 3))
        self._rate = rng.uniform(0.8, 1.6, (2, 3))
        self._phase = rng.uniform(0.0, 2.0 * np.pi, (2, 3))
        self._turn_phase = rng.uniform(0.0, 2.0 * np.pi)
        self._tilt = rng.uniform(-0.1, 0.1, 2)

    def poses(self, times_s: FloatArray) -> FloatArray:
        """(n, 4, 4) in base."""
        part = np.clip(times_s / _RAMP_S, 0.0, 1.0)
        ramp = part**3 * (10.0 - 15.0 * part + 6.0 * part**2)
        swings = self._size * np.sin(self._rate * times_s[:, None, None] + self._phase) * ramp[:, None, None]
        turn = 0.5 * np.pi * np.sin(0.6 * times_s + self._turn_phase) * ramp
        tilts = self._tilt * np.sin(times_s[:, None]) * ramp[:, None]
        R = Rotation.from_euler("zxy", np.column_stack([turn, tilts])).as_matrix() @ self._home[:3, :3]
        return se3.make_pose(self._home[:3, 3] + swings.sum(axis=1), R)


def stream(reference: Reference, duration_s: float, noise: Noise, rng: np.random.Generator) -> list[Arrival]:
    """Chunks of a noisy policy: observed every 100 to 400 ms, 100 to 300 ms late, gripper flips included."""
    arrivals, observed_s = [], 0.0
    while observed_s < duration_s:
        due_s = _due_s(float(rng.choice(_PERIODS_S)))
        poses = reference.poses(observed_s + due_s)
        gap, turn = rng.normal(0.0, noise.position_m, 3), rng.normal(0.0, noise.rotation_rad, 3)
        poses[:, :3, 3] += gap + noise.point_m * rng.normal(0.0, 1.0, (POINTS, 3))
        poses[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ poses[:, :3, :3]
        openings = np.where(np.sin(1.5 * (observed_s + due_s)) + rng.normal(0.0, 0.1, POINTS) > 0.0, 1.0, 0.0)
        chunk = ToolChunk(T0_NS + round(observed_s * 1e9), "absolute", poses, openings, due_s, "policy")
        arrivals.append(Arrival(observed_s + float(rng.uniform(0.1, 0.3)), chunk))
        observed_s += float(rng.uniform(0.1, 0.4))
    return sorted(arrivals, key=lambda arrival: arrival.time_s)


def step_aside(T_base_home: FloatArray, aside: FloatArray, step_s: float, latency_s: float) -> list[Arrival]:
    """Chunks that hold home, and from an observation at `step_s` on a place aside."""
    due_s = _due_s(0.1)
    arrivals = []
    for observed_s in np.arange(0.0, step_s + 1.0, 0.2):
        p = T_base_home[:3, 3] + (aside if observed_s > step_s - 1e-9 else 0.0)
        poses = se3.make_pose(np.tile(p, (POINTS, 1)), T_base_home[:3, :3])
        chunk = ToolChunk(T0_NS + round(observed_s * 1e9), "absolute", poses, None, due_s, "policy")
        arrivals.append(Arrival(float(observed_s) + latency_s, chunk))
    return arrivals


def _due_s(period_s: float) -> FloatArray:
    return np.asarray(period_s * np.arange(1, POINTS + 1), dtype=np.float64)


class Cell:
    """Timeline, controller, guard, and an arm that does what it is told.

    Args:
        robot: name.
        has_filter: whether the safety filter, with the package's limits, stands between timeline and controller.
    """

    def __init__(self, robot: str, has_filter: bool) -> None:
        self._config, self.model = load_model(robot)
        self.controller = CartesianController(self.model, controller_config())
        self.safety = load(SafetyConfig, package_share() / "config" / "safety.yaml")
        self._has_filter = has_filter
        self.T_base_home = self.model.forward_kinematics(self.model.home)

    def execute(self, seam: Seam, arrivals: list[Arrival], duration_s: float) -> Run:
        """Lets a stream move the arm, tick by tick."""
        dt_s = self.controller.dt_s
        timeline = ChunkTimeline(self.safety.chunk_max_age_s, seam, self.safety.gripper)
        front = _Filtered(self, timeline) if self._has_filter else _Bare(timeline, self.T_base_home)
        state = self.controller.init(self.model.home, 1.0)
        waiting, seams_s = list(arrivals), []
        positions, guarded, limited = [], [], []
        for tick in range(round(duration_s / dt_s)):
            now_ns = T0_NS + round(tick * dt_s * 1e9)
            front.observe(now_ns, np.asarray(state.command.positions), np.asarray(state.command.velocities))
            while waiting and waiting[0].time_s <= tick * dt_s:
                try:
                    front.offer(waiting.pop(0).chunk, now_ns)
                except ChunkError:
                    continue
                seams_s.append(tick * dt_s)
            state, command, report = self.controller.step(state, front.step(now_ns, dt_s), dt_s)
            positions.append(np.array(command.positions))
            guarded.append(report.is_clipped)
            limited.append(bool(report.interventions))
        times_s = np.asarray(dt_s * np.arange(len(positions)), dtype=np.float64)
        is_used = times_s > WARM_UP_S if times_s[-1] > WARM_UP_S else times_s >= 0.0
        p_tcp = np.array([self.model.forward_kinematics(q)[:3, 3] for q in positions])
        shares = [float(np.mean(np.array(acted)[is_used])) for acted in (guarded, limited)]
        return Run(times_s, np.array(positions), p_tcp, seams_s, shares[0], shares[1])

    def make_filter(self, timeline: ChunkTimeline) -> SafetyFilter:
        """A filter over a timeline."""
        model = self.model
        limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        return SafetyFilter(self.safety, self._config.tool, model.forward_kinematics, limits, timeline)


class _Filtered:
    """The safety filter, as the motion loop steps it."""

    def __init__(self, cell: Cell, timeline: ChunkTimeline) -> None:
        self._filter, self._states = cell.make_filter(timeline), JointStateBuffer(capacity=1024)
        self._filter.select_source("policy", T0_NS)

    def observe(self, now_ns: int, positions: FloatArray, velocities: FloatArray) -> None:
        self._states.append(RobotState(now_ns, positions, velocities))

    def offer(self, chunk: ToolChunk, now_ns: int) -> None:
        self._filter.offer(chunk, now_ns, self._states)

    def step(self, now_ns: int, dt_s: float) -> ToolTarget | JointTarget | None:
        return self._filter.step(now_ns, dt_s, self._states.newest())[0]


class _Bare:
    """The timeline alone."""

    def __init__(self, timeline: ChunkTimeline, T_base_home: FloatArray) -> None:
        self._timeline, self._home = timeline, T_base_home
        rest = np.zeros(6)
        self._last = Sample(T_base_home, None, rest, rest, None, T0_NS, False)
        self._limits = OffsetLimits(*(np.repeat(limit, 3) for limit in _BLEND_LIMITS))

    def observe(self, now_ns: int, positions: FloatArray, velocities: FloatArray) -> None:
        pass

    def offer(self, chunk: ToolChunk, now_ns: int) -> None:
        self._timeline.offer(chunk, now_ns, self._home, self._last, self._limits)

    def step(self, now_ns: int, dt_s: float) -> ToolTarget | None:
        due = self._timeline.sample(now_ns)
        if due is None or due.T_base_tcp is None:
            return None
        self._last = due
        return ToolTarget(now_ns, due.T_base_tcp, due.velocity, due.gripper_opening)
