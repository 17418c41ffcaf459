"""How the filter engages: where its motion goes on from when a chunk is taken, and how softly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.geometry import se3
from vla_ros.safety.tool_motion import ToolMotion, at_rest
from vla_ros.types import FloatArray, JointTarget, RobotState

# Gaps past which an arm at rest isn't where it was commanded to be.
_NEAR_M = 0.02
_NEAR_RAD = 0.1
# A moving arm may be behind by what it moves in this time.
_LAG_S = 0.1


class SoftStart:
    """The part of the limits that is in force: little at the moment of engaging, all of them after a while.

    Args:
        duration_s: of the growth; 0 for none.
    """

    # From rest; in motion, what the motion still takes of the limits.
    least = 0.2

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._engaged_ns, self._share = 0, self.least

    def engage(self, now_ns: int, share: float) -> None:
        """Begins with a part of the limits."""
        self._engaged_ns, self._share = now_ns, share

    def share(self, now_ns: int) -> float:
        """The part that is in force, in (0, 1]."""
        if self._duration_s <= 0.0:
            return 1.0
        # Ticks that are caught up with lie before the moment of engaging.
        passed = max(0.0, (now_ns - self._engaged_ns) * 1e-9 / self._duration_s)
        return min(1.0, self._share + (1.0 - self._share) * passed)


def tool_motion(
    motion: ToolMotion | None,
    joint: JointTarget | None,
    measured: RobotState,
    forward_kinematics: Callable[[FloatArray], FloatArray],
) -> ToolMotion:
    """The tool motion to go on from: the last command where the arm follows it, else what is measured, at rest.

    Args:
        motion: commanded last, None if joints were.
        joint: commanded last, None if the tool was.
        measured: newest state of the arm.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
    """
    T_measured = forward_kinematics(measured.positions)
    last = motion if joint is None else at_rest(forward_kinematics(joint.positions))
    if last is None:
        return at_rest(T_measured)
    gap = np.linalg.norm(se3.pose_error(T_measured, last.T_base_tcp).reshape(2, 3), axis=1)
    lag = _LAG_S * np.linalg.norm(last.twist.reshape(2, 3), axis=1)
    return last if np.all(gap < np.array([_NEAR_M, _NEAR_RAD]) + lag) else at_rest(T_measured)


def joint_motion(joint: JointTarget | None, measured: RobotState, gripper_opening: float | None) -> JointTarget:
    """The joint motion to go on from: the last command where the arm follows it, else what is measured.

    Args:
        joint: commanded last, None if the tool was.
        measured: newest state of the arm.
        gripper_opening: commanded last.
    """
    if joint is not None:
        gap = np.abs(joint.positions - measured.positions)
        if np.all(gap < _NEAR_RAD + _LAG_S * np.abs(joint.velocities)):
            return joint
    return JointTarget(measured.stamp_ns, measured.positions, measured.velocities, gripper_opening)
