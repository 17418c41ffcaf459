"""What the arm measures, watched: whether it can be relied upon, and whether the arm is where it was told to be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.tool_motion import ToolMotion, turn_between
from vla_ros.types import FloatArray, JointTarget, RobotState

_NS = 1e-9
# After a fault the arm has to stand still for so long; encoders and hands tremble by less than this.
_SETTLE_S = 0.3
_STILL_RAD = 0.005


class ArmWatch:
    """Judges measured states.

    Args:
        config: time-outs and tolerances.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
    """

    def __init__(self, config: SafetyConfig, forward_kinematics: Callable[[FloatArray], FloatArray]) -> None:
        self._config, self._forward_kinematics = config, forward_kinematics
        self._still: RobotState | None = None
        self.is_led = True
        """Whether the arm is to follow what is commanded; in a dry run it stands, and isn't astray."""
        self.is_astray = False
        """Whether the arm wasn't where it was told to be when it was last asked for: until motion begins again."""

    def unusable(self, measured: RobotState | None, now_ns: int) -> str:
        """Why a state can't be relied upon, empty if it can."""
        if measured is None:
            return "no joint state; is the arm's driver running, has its clock jumped?"
        silence_s, limit_s = (now_ns - measured.stamp_ns) * _NS, self._config.state_timeout_s
        if silence_s > limit_s:
            return f"no joint state for {silence_s:.2f} s (limit {limit_s} s); is the driver running?"
        if silence_s < -limit_s:
            return (
                f"joint state is stamped {-silence_s:.2f} s in the future (limit {limit_s} s); are the clocks in step?"
            )
        if not math.isfinite(sum(measured.positions.tolist())):
            return "joint state isn't finite; is the driver sound?"
        return ""

    def astray(self, measured: RobotState, motion: ToolMotion | None, joint: JointTarget | None) -> str:
        """In what the arm isn't where it was last told to be, empty if it is.

        Args:
            measured: a usable state.
            motion: of the tool, commanded last; None if joints were.
            joint: commanded last, None if the tool was.
        """
        reason = self._gap(measured, motion, joint)
        self.is_astray = bool(reason)
        return reason

    def _gap(self, measured: RobotState, motion: ToolMotion | None, joint: JointTarget | None) -> str:
        if not self.is_led:
            return ""
        limit_rad = self._config.tracking_tolerance_rad
        if joint is not None:
            gaps = np.abs(joint.positions - measured.positions)
            worst = int(gaps.argmax())
            gap = float(gaps[worst])
            return "" if gap <= limit_rad else _far(f"joint {worst + 1} of the arm", gap, limit_rad, "rad")
        if motion is None:
            return ""
        T_measured = self._forward_kinematics(measured.positions)
        distance = math.dist(T_measured[:3, 3].tolist(), motion.T_base_tcp[:3, 3].tolist())
        if distance > self._config.tracking_tolerance_m:
            return _far("the arm", distance, self._config.tracking_tolerance_m, "m")
        angle = math.hypot(*turn_between(T_measured, motion.T_base_tcp))
        return "" if angle <= limit_rad else _far("the tool", angle, limit_rad, "rad")

    def unsettle(self) -> None:
        """Begins anew to wait for the arm to stand still."""
        self._still = None

    def has_settled(self, measured: RobotState) -> bool:
        """Whether the arm has stood still for a while since `unsettle`."""
        still = self._still
        if still is None or float(np.abs(measured.positions - still.positions).max()) > _STILL_RAD:
            self._still = measured
            return False
        return (measured.stamp_ns - still.stamp_ns) * _NS >= _SETTLE_S


def _far(what: str, gap: float, limit: float, unit: str) -> str:
    return (
        f"{what} is {gap:.3f} {unit} away from its target (limit {limit} {unit}); is it blocked, stopped or in a reset?"
    )
