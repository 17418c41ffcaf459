"""Recorded actions once more, through whatever stands between a policy and the arm: chunk after short chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.recording.courses import Course, ReplayError, approach_course, paced, path_course
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.types import FloatArray, JointChunk, MotionState, RobotState, ToolChunk

CHUNK_PERIOD_S = 0.2

_NS = 1e-9
_LEAD_S = 0.1
_SETTLE_S, _PATIENCE_S = 0.4, 3.0
_START_TOLERANCE_RAD = 0.02
_LONGEST_HOLD_S = 0.5

Phase = Literal["approach", "path", "done"]


@dataclass(frozen=True, eq=False)
class _Running:
    course: Course
    start_ns: int
    phase: Phase


class Player:
    """Leads an arm through recorded actions: called again and again, it says which chunk is to be sent now.

    Args:
        actions: the episode's.
        forward_kinematics: (n,) rad -> T_base_tcp (4, 4).
        speed: 1 as recorded.
    """

    def __init__(
        self, actions: RecordedActions, forward_kinematics: Callable[[FloatArray], FloatArray], speed: float = 1.0
    ) -> None:
        paced(actions.times_s, speed)
        self.actions, self.speed = actions, speed
        self._forward_kinematics = forward_kinematics
        self._running: _Running | None = None
        self._sent_ns = 0

    @property
    def phase(self) -> Phase:
        """What it is at."""
        return "approach" if self._running is None else self._running.phase

    @property
    def path(self) -> Course | None:
        """The episode's own course, with the way onto it; None before it began."""
        running = self._running
        return running.course if running is not None and running.phase != "approach" else None

    @property
    def path_start_ns(self) -> int:
        """When that begins."""
        return 0 if self._running is None else self._running.start_ns

    def fraction(self, now_ns: int) -> float:
        """How much of the episode's course is over."""
        course = self.path
        return 0.0 if course is None else min(1.0, max(0.0, (now_ns - self.path_start_ns) * _NS / course.duration_s))

    def is_leading(self, now_ns: int) -> bool:
        """Whether the arm ought to be moving for it at a time: a course is under way."""
        running = self._running
        if running is None or running.phase == "done":
            return False
        return 0.0 <= (now_ns - running.start_ns) * _NS < running.course.duration_s

    def wanted(self, time_ns: int) -> FloatArray | None:
        """T_base_tcp (4, 4), or (joints,) rad, wanted at a time from the first target on; None before that."""
        course = self.path
        time_s = (time_ns - self.path_start_ns) * _NS
        return None if course is None or time_s < course.lead_s else course.at(time_s)

    def update(self, now_ns: int, measured: RobotState) -> ToolChunk | JointChunk | None:
        """The chunk to be sent now, None for none.

        Args:
            now_ns: present time.
            measured: newest state of the arm.

        Raises:
            ReplayError: if the arm doesn't come to where the episode begins.
        """
        if self.phase == "done":
            return None
        if self._running is None:
            course = approach_course(measured.positions, self.actions)
            # In joint space the path itself begins where the arm is.
            self._begin("approach" if course is not None else "path", course, now_ns, measured)
        running = self._running
        if running is None:
            return None
        over_s = (now_ns - running.start_ns) * _NS - running.course.duration_s
        if over_s >= _SETTLE_S:
            if running.phase == "path":
                self._running = _Running(running.course, running.start_ns, "done")
                return None
            if self._is_at_start(measured, over_s):
                self._begin("path", None, now_ns, measured)
                running = self._running
            over_s = 0.0
        if running is None or over_s > 0.0 or (now_ns - self._sent_ns) * _NS < CHUNK_PERIOD_S - 1e-6:
            return None
        self._sent_ns = now_ns
        return running.course.chunk(running.start_ns, now_ns)

    def _begin(self, phase: Phase, course: Course | None, now_ns: int, measured: RobotState) -> None:
        if course is None:
            is_tool = self.actions.poses is not None
            start = self._forward_kinematics(measured.positions) if is_tool else measured.positions
            course = path_course(start, self.actions, self.speed)
        self._running = _Running(course, now_ns + round(_LEAD_S / _NS), phase)
        self._sent_ns = 0

    def _is_at_start(self, measured: RobotState, over_s: float) -> bool:
        wanted = self.actions.start_positions
        away_rad = 0.0 if wanted is None else float(np.abs(measured.positions - wanted).max())
        if away_rad > _START_TOLERANCE_RAD and over_s > _PATIENCE_S:
            raise ReplayError(
                f"the arm doesn't come to where {self.actions.name} begins: a joint is {away_rad:.3f} rad off "
                f"(limit {_START_TOLERANCE_RAD} rad) after {over_s:.1f} s; safety/verdict says what holds it"
            )
        return away_rad <= _START_TOLERANCE_RAD


class HoldWatch:
    """Notices that the filter holds the arm although the player leads it."""

    def __init__(self) -> None:
        self._since_ns = 0

    def problem(self, player: Player, state: MotionState, reason: str, now_ns: int) -> str:
        """Why a replay can't go on, empty if it can.

        Args:
            player: leads.
            state: of the filter.
            reason: that it gives.
            now_ns: present time.
        """
        if state in (MotionState.STOPPED, MotionState.FAULT):
            return f"the filter is {state.value} in the {player.phase}: {reason}"
        if state is MotionState.RUNNING or not player.is_leading(now_ns):
            self._since_ns = 0
            return ""
        self._since_ns = self._since_ns or now_ns
        held_s = (now_ns - self._since_ns) * _NS
        return "" if held_s < _LONGEST_HOLD_S else f"the filter is {state.value} in the {player.phase}: {reason}"
