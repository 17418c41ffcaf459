"""What came of a replay, rehearsed or real: the way that was gone, and the limits that acted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_ros.evaluation.path_error import PathError, path_error
from vla_ros.recording.courses import ReplayError
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, MotionState, RobotState

_NO_LIMITS = {"source", "chunk", *(state.value for state in MotionState)}


@dataclass
class LimitUse:
    """A limit that acted.

    Attributes:
        count: in how many ticks, or verdicts where those were heard.
        first_s: when first, from the beginning.
        reason: what it said then.
    """

    count: int
    first_s: float
    reason: str


@dataclass(frozen=True, eq=False)
class ReplayRun:
    """A replay that is over.

    Attributes:
        duration_s: of all, the way to the start included.
        problem: why it ended early, empty for an episode that was gone through to its end.
        limits: that acted, by name.
        stamps_ns: of the moments below, from the first recorded target on.
        wanted: (n, 4, 4) T_base_tcp at each.
        gone: (n, 4, 4) T_base_tcp measured at each.
        openings: (n,) of the gripper measured at each, NaN while unknown.
        error: of the way; None where there was none.
    """

    duration_s: float
    problem: str
    limits: dict[str, LimitUse]
    stamps_ns: list[int]
    wanted: FloatArray
    gone: FloatArray
    openings: FloatArray
    error: PathError | None


class ReplayLog:
    """Takes what is seen while a replay runs.

    Args:
        model: of the arm.
        start_ns: when it began.
    """

    def __init__(self, model: RobotModel, start_ns: int) -> None:
        self._model, self._start_ns = model, start_ns
        self._limits: dict[str, LimitUse] = {}
        self._stamps_ns: list[int] = []
        self._wanted: list[FloatArray] = []
        self._gone: list[FloatArray] = []
        self._openings: list[float] = []

    def add_limits(self, acted: Mapping[str, str], now_ns: int) -> None:
        """Counts what a verdict names, name -> reason; that the filter holds isn't a limit."""
        for name, reason in acted.items():
            if name not in _NO_LIMITS:
                self._limits.setdefault(name, LimitUse(0, (now_ns - self._start_ns) * 1e-9, reason)).count += 1

    def sample(self, wanted: FloatArray | None, measured: RobotState) -> None:
        """A moment: T_base_tcp (4, 4) or (joints,) rad that was wanted, None for nothing, and what is measured."""
        if wanted is None or (self._stamps_ns and measured.stamp_ns <= self._stamps_ns[-1]):
            return
        self._stamps_ns.append(measured.stamp_ns)
        self._wanted.append(wanted if wanted.ndim == 2 else self._model.forward_kinematics(wanted))
        self._gone.append(self._model.forward_kinematics(measured.positions))
        self._openings.append(float("nan") if measured.gripper_opening is None else measured.gripper_opening)

    def finish(self, actions: RecordedActions, now_ns: int, problem: str) -> ReplayRun:
        """The run, judged by the path of the actions."""
        wanted, gone = (np.array(poses).reshape(-1, 4, 4) for poses in (self._wanted, self._gone))
        error = path_error(wanted, gone, tool_path(actions, self._model)) if len(gone) else None
        duration_s = (now_ns - self._start_ns) * 1e-9
        return ReplayRun(
            duration_s, problem, self._limits, self._stamps_ns, wanted, gone, np.array(self._openings), error
        )


def tool_path(actions: RecordedActions, model: RobotModel) -> FloatArray:
    """(n, 3) positions of the tcp along recorded targets."""
    if actions.poses is not None:
        return actions.poses[:, :3, 3]
    if actions.positions is None:
        raise ReplayError(f"{actions.name} has neither poses nor postures")
    return np.array([model.forward_kinematics(q)[:3, 3] for q in actions.positions])
