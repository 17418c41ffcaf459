"""What a UR makes of the positions that its driver streams: servoj at 500 Hz.

The script on the robot hands every position to `servoj`, whose documentation says: the gain pulls the position to the
target, and lookahead projects the position forward with its velocity. Read so, the acceleration is
`gain (target - (q + lookahead dq))`: a low pass of 45 rad/s that lags by the lookahead.

Source: Universal_Robots_Client_Library, resources/external_control.urscript (set_servo_setpoint, JOINT_IGNORE_SPEED);
ur_robot_driver, urdf/ur.ros2_control.xacro (lookahead 0.03 s, gain 2000); UR's script manual, servoj.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_ros.hardware.differences import Differences, StreamLimits
from vla_ros.robots.config import JointConfig
from vla_ros.types import FloatArray

CYCLE_S = 0.002
GAIN, LOOKAHEAD_S = 2000.0, 0.03

# The script leaves out a target that would take a joint faster than this, rad/s.
_IGNORED_RAD_S = 20.0
# The safety system's factory setting lies so far above a joint's maximum: 191 deg/s for 180, 131 for 120.
_SAFETY_MARGIN_RAD_S = math.radians(11.0)
# How far the arm may be from where servoj wants it. UR publishes no number; this is the path tolerance of the driver's
# own trajectory controllers (ur_controllers.yaml, constraints).
_DEVIATION_RAD = 0.2
_ROUNDING_RAD = 1e-6


class Servoj:
    """The motion that servoj makes of targets.

    Args:
        joints: of the arm.
    """

    def __init__(self, joints: Sequence[JointConfig]) -> None:
        self._names = tuple(joint.name for joint in joints)
        self._fastest = np.array([joint.velocity_rad_s for joint in joints]) + _SAFETY_MARGIN_RAD_S
        self.limits = StreamLimits(joints)
        self.ignored = 0
        """Targets that were left out since the start."""

        self.begin(np.array([joint.home_rad for joint in joints]))

    def begin(self, positions: FloatArray) -> None:
        """A motion begins at rest, (n,) rad."""
        self._target = self.positions = positions
        self.velocities = np.zeros(len(positions))
        self._differences = Differences(positions, CYCLE_S)

    def step(self, target: FloatArray, measured: FloatArray) -> str | None:
        """Advances `positions` and `velocities` by a cycle.

        Args:
            target: (n,) rad, what the driver sends.
            measured: (n,) rad.

        Returns:
            Why the arm goes into a protective stop, or None.
        """
        if self._is_reachable(self._target, target) or self._is_reachable(measured, target):
            self._target = target
        else:
            self.ignored += 1
        self.limits.note(self._target, self._differences.step(self._target))
        acceleration = GAIN * (self._target - self.positions - LOOKAHEAD_S * self.velocities)
        self.velocities = self.velocities + CYCLE_S * acceleration
        self.positions = self.positions + CYCLE_S * self.velocities
        return self._find_reason(measured)

    def _is_reachable(self, start: FloatArray, end: FloatArray) -> bool:
        return bool(np.abs(end - start).max() <= _IGNORED_RAD_S * CYCLE_S)

    def _find_reason(self, measured: FloatArray) -> str | None:
        limits = self.limits
        over = (
            ("position", np.maximum(self.positions - limits.upper, limits.lower - self.positions) - _ROUNDING_RAD),
            ("speed", np.abs(self.velocities) - self._fastest),
            ("deviation from the path", np.abs(self.positions - measured) - _DEVIATION_RAD),
        )
        for what, excess in over:
            if not (excess <= 0.0).all():
                return f"{what} of {self._names[int(np.argmax(excess))]}"
        return None
