"""One episode of adversity: an arm that lags, states that come late or not at all, a clock that jumps, and the path."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vla_ros.actions.path import OffsetLimits
from vla_ros.benchmarks.motion.arms import controller_config
from vla_ros.benchmarks.motion.storm import SOURCES, Storm
from vla_ros.config import load, package_share
from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.errors import ChunkError
from vla_ros.evaluation.limits_judge import POSITION_QUANTUM_RAD, judge_limits
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import FloatArray, JointTarget, RobotState, ToolTarget

EPISODE_TICKS = 4000
_T0_NS = 1_763_800_000_000_000_000
_RESUME_TICKS = 250
_MS = 1_000_000
_SEAMS: tuple[Literal["blend", "switch", "ensemble"], ...] = ("blend", "blend", "switch", "ensemble")


class Episode:
    """The path and all that is done to it. `tick` moves it on by one.

    Attributes:
        model: of the robot, with the limits to judge by.
        sent: (n,) rad of each tick, commanded; None where nothing was.
        counts: of what happened.
    """

    def __init__(self, robot: str, seed: int) -> None:
        rng = self._rng = np.random.default_rng(seed)
        config = _with_stiff_joints(load_robot(robot), rng)
        self.model = RobotModel.from_config(config)
        settings = controller_config()
        self.controller = CartesianController(self.model, settings)
        self.dt_s = 1.0 / settings.rate_hz
        self._settings = settings
        safety = load(SafetyConfig, package_share() / "config" / "safety.yaml")
        safety = replace(safety, seam=_SEAMS[int(rng.integers(len(_SEAMS)))])
        if rng.random() < 0.3:  # A cell without walls, as fast as the robot may: the guard has to do it all.
            wide = (5.0, 5.0, 5.0)
            safety = replace(
                safety,
                workspace_lower_m=(-5.0, -5.0, -5.0),
                workspace_upper_m=wide,
                velocity_m_s=50.0,
                acceleration_m_s2=500.0,
                angular_velocity_rad_s=50.0,
                angular_acceleration_rad_s2=500.0,
                soft_start_s=0.0,
                blend_half_s=float(rng.choice([0.005, 0.02, 0.15])),
                tracking_tolerance_m=5.0,
            )
        limits = OffsetLimits(self.model.velocity, self.model.acceleration, self.model.jerk)
        self.filter = SafetyFilter(safety, config.tool, self.model.forward_kinematics, limits)
        self.states = JointStateBuffer(512)
        self.storm = Storm(self.model, rng)
        self.sent: list[FloatArray | None] = []
        self.counts: Counter[str] = Counter()

        self._is_direct = rng.random() < 0.25  # Targets straight to the controller.
        self._chunks_hz = float(rng.choice([4.0, 10.0, 25.0, 60.0]))
        self._latency_s = float(rng.choice([0.0, 0.1, 0.3, 0.8]))
        self._lag = float(rng.choice([1.0, 0.3, 0.1]))  # Part of the way to the command that the arm goes in a tick.
        self._state_delay = int(rng.choice([0, 1, 5, 12]))
        self._state_loss = float(rng.choice([0.0, 0.1, 0.5]))
        self._trouble = float(rng.choice([0.0, 1.0, 4.0]))  # Events a second.
        self._queue: list[tuple[int, int, Any]] = []
        self._delivered = 0
        self._arm = self._start()
        self._measured: deque[FloatArray] = deque([self._arm.copy()], maxlen=self._state_delay + 1)
        self._state: ControllerState | None = None
        self._silent_until = self._resume_at = self._reset_at = 0
        self._clock_ns = _T0_NS
        self._direct_target: ToolTarget | JointTarget | None = None
        self.filter.select_source(str(rng.choice(SOURCES)), self._clock_ns)

    def tick(self) -> None:
        """One tick of the loop, and of all around it."""
        number = len(self.sent)
        rng = self._rng
        self._clock_ns += round(self.dt_s * 1e9)
        self._measure(number)
        if rng.random() < self._trouble * self.dt_s:
            self._make_trouble(number)
        if number == self._reset_at:
            self.filter.reset(self._clock_ns)
        if rng.random() < self._chunks_hz * self.dt_s:
            self._send(number)
        while self._queue and self._queue[0][0] <= number:
            self._offer(heappop(self._queue)[2])
        newest = self.states.newest()
        target, _ = self.filter.step(self._clock_ns, self.dt_s, newest)
        if self._is_direct:
            if rng.random() < 0.1:
                self._direct_target = self.storm.target(self._clock_ns, self._arm)
            target = self._direct_target
        self.sent.append(self._command(number, target, newest))
        if self.sent[-1] is not None:
            self._arm = self._arm + self._lag * (self.sent[-1] - self._arm)

    def _command(
        self, number: int, target: ToolTarget | JointTarget | None, newest: RobotState | None
    ) -> FloatArray | None:
        """What the controller sends, with the node's own rules for an arm that is lost or silent."""
        if newest is None or number < self._resume_at:
            return None
        if self._state is not None:
            gap_rad = np.abs(self._state.command.positions - newest.positions).max()
            if gap_rad > self._settings.engage_tolerance_rad:
                self._state, self._resume_at = None, number + _RESUME_TICKS
                self.counts["arm_lost"] += 1
                return None
        if self._state is None:
            self._state = self.controller.init(newest.positions, newest.gripper_opening)
        if (self._clock_ns - newest.stamp_ns) * 1e-9 > self._settings.state_timeout_s:
            target = None
            self.counts["stale_ticks"] += 1
        self._state, command, report = self.controller.step(self._state, target, self.dt_s)
        self.counts["moving_ticks"] += bool((np.abs(command.velocities) > 1e-4).any())
        self.counts["clipped_ticks"] += report.is_clipped
        if not (np.isfinite(command.velocities).all() and np.isfinite(command.accelerations).all()):
            self.counts["not_finite"] += 1
        return command.positions

    def _start(self) -> FloatArray:
        """Home, anywhere, or outside of the position limits."""
        model, kind = self.model, self._rng.random()
        if kind < 0.4:
            return model.home.copy()
        q = self._rng.uniform(model.lower, model.upper)
        if kind > 0.8:
            joint = int(self._rng.integers(len(q)))
            past = float(self._rng.choice([1e-6, 0.01, 0.1]))
            q[joint] = self._rng.choice([model.lower[joint] - past, model.upper[joint] + past])
            self.counts["starts_outside"] += 1
        return np.asarray(q)

    def _measure(self, number: int) -> None:
        self._measured.append(self._arm.copy())
        if number < self._silent_until or self._rng.random() < self._state_loss:
            return
        stamp_ns = self._clock_ns - (len(self._measured) - 1) * round(self.dt_s * 1e9)
        positions = self._measured[0]
        velocities = np.zeros_like(positions)
        if self._rng.random() < 0.002 * self._trouble:
            positions = positions.copy()
            positions[int(self._rng.integers(len(positions)))] = self._rng.choice([np.nan, np.inf])
        self.states.append(RobotState(stamp_ns, positions, velocities, 0.5))

    def _make_trouble(self, number: int) -> None:
        rng, now_ns = self._rng, self._clock_ns
        kind = int(rng.integers(6))
        if kind == 0:
            self.filter.select_source(str(rng.choice(SOURCES)), now_ns)
        elif kind == 1:
            self.filter.stop("trouble", now_ns)
            self._reset_at = number + int(rng.integers(1, 100))
        elif kind == 2:
            self.filter.reset(now_ns)
        elif kind == 3:
            self.filter.drop_chunks(now_ns, "task changed")
        elif kind == 4:
            self._silent_until = number + int(rng.integers(5, 150))
        else:
            # The node names a jump that lasts three ticks and clears what the states' stamps can't mean any more.
            jump_ns = int(rng.choice([-1, 1])) * int(10 ** rng.uniform(0.0, 4.0)) * _MS
            self._clock_ns += jump_ns
            self.filter.drop_chunks(self._clock_ns, "the clock jumped")
            if rng.random() < 0.7:
                self.states.clear()
        self.counts["troubles"] += 1

    def _send(self, number: int) -> None:
        """Puts a chunk on its way; it arrives late, out of order or twice."""
        rng = self._rng
        chunk = self.storm.chunk(self._clock_ns - int(rng.integers(0, 20)) * _MS, self._arm, self.filter.source)
        for _ in range(1 + int(rng.random() < 0.05)):
            late = int(rng.uniform(0.0, self._latency_s) / self.dt_s)
            self._delivered += 1
            heappush(self._queue, (number + late, self._delivered, chunk))

    def _offer(self, chunk: Any) -> None:
        self.counts["chunks"] += 1
        try:
            self.filter.offer(chunk, self._clock_ns, self.states)
            self.counts["chunks_taken"] += 1
        except ChunkError:
            self.counts["chunks_refused"] += 1


@dataclass(frozen=True)
class EpisodeVerdict:
    """What the judge says of an episode: how many values are past limits, how many aren't finite, and the first."""

    violations: int
    not_finite: int
    first: str | None
    first_tick: int


def judge_episode(episode: Episode) -> EpisodeVerdict:
    """Holds each stretch of commands against the limits; a pause of the stream begins a new one.

    A joint that a stretch finds outside of its position limits is judged by them once it has come inside; until then
    it may not go further out.
    """
    violations, not_finite, first, first_tick = 0, episode.counts.pop("not_finite", 0), None, 0
    for start, positions in _stretches(episode.sent):
        not_finite += int(np.count_nonzero(~np.isfinite(positions)))
        stamps_ns = np.arange(len(positions)) * round(episode.dt_s * 1e9)
        starts_outside, returns = return_violations(positions, episode.model.lower, episode.model.upper)
        lower = np.where(starts_outside, -np.inf, episode.model.lower)
        upper = np.where(starts_outside, np.inf, episode.model.upper)
        report = judge_limits(stamps_ns, positions, _Limits(episode.model, lower, upper))
        violations += report.violation_count + returns
        if first is None and returns:
            first, first_tick = "a joint that started outside of its position limits went further out", start
        if first is None and not report.is_clean:
            found = min(report.first_violations.values(), key=lambda item: item.time_s)
            first, first_tick = str(found), start + round(found.time_s / episode.dt_s)
    return EpisodeVerdict(violations, not_finite, first, first_tick)


@dataclass(frozen=True)
class _Limits:
    """A model's limits with the position limits of some joints taken away."""

    model: RobotModel
    lower: FloatArray
    upper: FloatArray

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def return_violations(positions: FloatArray, lower: FloatArray, upper: FloatArray) -> tuple[NDArray[np.bool_], int]:
    """Which joints start outside of their position limits, and how often one of them then goes further out.

    Args:
        positions: (ticks, n) rad.
        lower: (n,) rad.
        upper: (n,) rad.
    """
    excess = np.maximum(np.maximum(lower - positions, positions - upper), 0.0)
    starts_outside = excess[0] > 0.0
    # Once inside the excess is 0, so going out again is an increase too.
    grows = np.diff(excess[:, starts_outside], axis=0) > POSITION_QUANTUM_RAD
    return starts_outside, int(np.count_nonzero(grows))


def _stretches(sent: list[FloatArray | None]) -> list[tuple[int, FloatArray]]:
    """Unbroken runs of commands: the tick at which each starts, and its positions."""
    stretches: list[tuple[int, list[FloatArray]]] = []
    is_open = False
    for tick, positions in enumerate(sent):
        if positions is None:
            is_open = False
            continue
        if not is_open:
            stretches.append((tick, []))
            is_open = True
        stretches[-1][1].append(positions)
    return [(start, np.array(run)) for start, run in stretches]


def _with_stiff_joints(config: RobotConfig, rng: np.random.Generator) -> RobotConfig:
    """Now and then one joint may not move at all: a limit of 0 is a limit."""
    if rng.random() > 0.1:
        return config
    index = int(rng.integers(len(config.joints)))
    joints = list(config.joints)
    joint = joints[index]
    joints[index] = (
        replace(joint, velocity_rad_s=0.0),
        replace(joint, acceleration_rad_s2=0.0),
        replace(joint, jerk_rad_s3=0.0),
    )[int(rng.integers(3))]
    return replace(config, joints=tuple(joints))
