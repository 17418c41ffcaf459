"""Recorded actions through filter and controller, tick by tick in one process: what a replay would do or run into.

Nothing looks at a clock, so the same episode gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ChunkError
from vla_ros.evaluation.motion_path import MotionPath
from vla_ros.evaluation.replay_log import ReplayLog, ReplayRun
from vla_ros.recording.courses import SOURCE, ReplayError
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.recording.replaying import HoldWatch, Player
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.types import FloatArray, JointCommand, RobotState

_START_NS = 1_000_000_000
# The way is judged so often.
_SAMPLE_TICKS = 5


class Arm(Protocol):
    """What is moved."""

    def measure(self, stamp_ns: int) -> RobotState:
        """Its state, under the stamp given."""

    def follow(self, command: JointCommand, duration_s: float) -> None:
        """Carries out a command for so long."""


class IdealArm:
    """An arm that is at once where it is told to be.

    Args:
        positions: (n,) rad at the start.
    """

    def __init__(self, positions: FloatArray) -> None:
        self._positions, self._velocities = np.array(positions), np.zeros(len(positions))
        self._opening: float | None = None

    def measure(self, stamp_ns: int) -> RobotState:
        """Its state, under the stamp given."""
        return RobotState(stamp_ns, self._positions, self._velocities, self._opening)

    def follow(self, command: JointCommand, duration_s: float) -> None:
        """Is there."""
        self._positions, self._velocities = np.array(command.positions), np.array(command.velocities)
        self._opening = command.gripper_opening if command.gripper_opening is not None else self._opening


def rehearse(
    actions: RecordedActions,
    model: RobotModel,
    safety: SafetyConfig,
    controller: ControllerConfig,
    arm: Arm,
    speed: float = 1.0,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> ReplayRun:
    """Leads an arm through an episode's actions.

    Args:
        actions: the episode's.
        model: of the arm.
        safety: the filter's limits.
        controller: settings.
        arm: what is moved.
        speed: 1 as recorded.
        progress: called with the share of the episode that is over.

    Raises:
        ReplayError: for actions of another arm, or a speed out of range.
    """
    path, watch = MotionPath(model, safety, controller), HoldWatch()
    player, log = Player(actions, model.forward_kinematics, speed), ReplayLog(model, _START_NS)
    now_ns, tick, problem, refusal = _START_NS, 0, "", ""
    path.filter.select_source(SOURCE, now_ns)
    while not problem:
        measured = arm.measure(now_ns)
        path.states.append(measured)
        try:
            chunk = player.update(now_ns, measured)
        except ReplayError as error:
            if tick == 0:
                raise
            problem = str(error)
            break
        if player.phase == "done":
            break
        if chunk is not None:
            try:
                path.filter.offer(chunk, now_ns, path.states)
            except ChunkError as error:
                refusal = str(error)
        now_ns, tick = now_ns + round(path.dt_s * 1e9), tick + 1
        command, verdict, acted = path.step(now_ns, measured)
        arm.follow(command, path.dt_s)
        log.add_limits({item.limit: item.reason for item in (*verdict.interventions, *acted)}, now_ns)
        reason = refusal or "; ".join(item.reason for item in verdict.interventions)
        problem = watch.problem(player, verdict.state, reason, now_ns)
        if tick % _SAMPLE_TICKS == 0:
            log.sample(player.wanted(now_ns), arm.measure(now_ns))
            progress(player.fraction(now_ns))
    return log.finish(actions, now_ns, problem)


def without_latency(safety: SafetyConfig) -> SafetyConfig:
    """The same limits for an arm that is at once where it is told to be."""
    return replace(safety, actuation_latency_s=0.0, observation_latency_s=0.0)
