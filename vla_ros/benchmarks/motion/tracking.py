"""A solver behind the guard, following a tool pose over time: what is judged of singularities and of ways back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.benchmarks.motion.arms import controller_config, load_model
from vla_ros.benchmarks.motion.peers import AdaptiveDamping, ConstantDamping, Peer, ServoHalting
from vla_ros.benchmarks.motion.peers_pypi import Mink, Pink, missing
from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.control.guard import JointGuard, at_rest
from vla_ros.evaluation.limits_judge import LimitReport, judge_limits
from vla_ros.geometry import se3
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, ToolTarget

OURS = "ours"
# A radian of rotation counts as much as this way of the tcp: the scale in which the singular values are taken, too.
LENGTH_M = 1.0

Goal = Callable[[float], tuple[FloatArray, FloatArray]]
"""Time in s -> pose T_base_tcp (4, 4) and twist (6,) in base axes."""


@dataclass(frozen=True)
class Track:
    """What a solver made of a goal.

    Attributes:
        name: of the solver.
        positions: (ticks, n) rad, commanded.
        errors: (ticks, 2) distance in m and angle in rad between goal and tool.
        report: of the limits' judge.
    """

    name: str
    positions: FloatArray
    errors: FloatArray
    report: LimitReport

    def error_until(self, tick: int, ticks: int = 25) -> float:
        """Mean pose error in m over the ticks up to one, a radian counted as `LENGTH_M`.

        A mean, since a solver that swings to and fro is near the goal for a tick now and then.
        """
        errors = self.errors[tick - ticks + 1 : tick + 1]
        return float(np.hypot(errors[:, 0], LENGTH_M * errors[:, 1]).mean())


class Bench:
    """An arm with our controller and the peers, all with the same limits and guard.

    Args:
        config: the arm.
        model: likewise.
        is_quick: fewer variants of the peers.
        has_peers: whether there are any; making them takes a second.
    """

    def __init__(
        self, config: RobotConfig, model: RobotModel, *, is_quick: bool = False, has_peers: bool = True
    ) -> None:
        self.model = model
        self.peers: list[Peer] = []
        self.problems: list[str] = []
        settings = controller_config()
        self.dt_s = 1.0 / settings.rate_hz
        self.controller = CartesianController(model, settings)
        if has_peers:
            self._add_peers(config, is_quick)

    def _add_peers(self, config: RobotConfig, is_quick: bool) -> None:
        limits, model = self.controller.limits, self.model
        velocity = limits.velocity
        dampings = (0.05,) if is_quick else (0.01, 0.02, 0.05, 0.1, 0.2)
        self.peers += [ServoHalting(model, velocity), AdaptiveDamping(model, velocity)]
        self.peers += [ConstantDamping(model, velocity, damping) for damping in dampings]
        for kind in (Pink, Mink):
            problem = missing(kind.name)
            if problem:
                self.problems.append(problem)
                continue
            self.peers.append(kind(config, model, limits))

    def tracks(self, start: FloatArray, goal: Goal, seconds: float) -> list[Track]:
        """Ours first, then every peer."""
        return [self.ours(start, goal, seconds), *(self.peer(peer, start, goal, seconds) for peer in self.peers)]

    def ours(self, start: FloatArray, goal: Goal, seconds: float) -> Track:
        """The controller as it is."""
        state = self.controller.init(start)
        positions = [start]
        for tick in range(1, round(seconds / self.dt_s) + 1):
            T, twist = goal(tick * self.dt_s)
            state, command, _ = self.controller.step(state, ToolTarget(self._stamp_ns(tick), T, twist), self.dt_s)
            positions.append(command.positions)
        return self._judge(OURS, np.array(positions), goal)

    def peer(self, peer: Peer, start: FloatArray, goal: Goal, seconds: float) -> Track:
        """A peer: it integrates a reference within the position limits, which the guard follows."""
        limits = self.controller.limits
        guard = JointGuard(limits, self.dt_s)
        motion = at_rest(np.array(start))
        reference = np.array(start)
        positions = [start]
        for tick in range(1, round(seconds / self.dt_s) + 1):
            T, _ = goal(tick * self.dt_s)
            velocities = peer.velocities(reference, T, self.dt_s)
            reference = np.clip(reference + self.dt_s * velocities, limits.lower, limits.upper)
            motion, _ = guard.step(motion, reference)
            positions.append(motion.positions)
        return self._judge(peer.name, np.array(positions), goal)

    def _judge(self, name: str, positions: FloatArray, goal: Goal) -> Track:
        errors = np.empty((len(positions), 2))
        for tick, q in enumerate(positions):
            error = se3.pose_error(self.model.forward_kinematics(q), goal(tick * self.dt_s)[0])
            errors[tick] = np.linalg.norm(error[:3]), np.linalg.norm(error[3:])
        stamps_ns = np.array([self._stamp_ns(tick) for tick in range(len(positions))])
        return Track(name, positions, errors, judge_limits(stamps_ns, positions, self.model))

    def _stamp_ns(self, tick: int) -> int:
        return round(tick * self.dt_s * 1e9)


@functools.lru_cache(maxsize=8)
def bench_of(robot: str, is_quick: bool, has_peers: bool) -> Bench:
    """The bench of a robot by its name; a process makes each once."""
    return Bench(*load_model(robot), is_quick=is_quick, has_peers=has_peers)


def summary(track: Track) -> dict[str, Any]:
    """What a table says of a track."""
    report = track.report
    return {
        "end_error_mm": 1e3 * float(track.errors[-1, 0]),
        "end_error_deg": float(np.degrees(track.errors[-1, 1])),
        "violations": report.violation_count,
        "peak_velocity_fraction": report.peak_velocity_fraction,
        "peak_acceleration_fraction": report.peak_acceleration_fraction,
        "peak_jerk_fraction": report.peak_jerk_fraction,
    }
