"""What a Franka makes of its command stream at 1 kHz: a reflex, by the name that franka_msgs/Errors has for it.

Its motion generator takes one desired position a cycle and differentiates; whatever lies between two positions that
come less often is a step to it. Whoever streams has to keep the limits, since franka_ros2's rate limiters are off.

Source: libfranka, docs/overview.rst ("Errors") and include/franka/rate_limiting.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.hardware.differences import Differences, StreamLimits
from vla_ros.robots.config import JointConfig
from vla_ros.types import FloatArray

CYCLE_S = 0.001

POSITION = "joint_motion_generator_position_limits_violation"
VELOCITY = "joint_motion_generator_velocity_limits_violation"
ACCELERATION = "joint_motion_generator_velocity_discontinuity"
JERK = "joint_motion_generator_acceleration_discontinuity"
MEASURED_POSITION = "joint_position_limits_violation"
MEASURED_VELOCITY = "joint_velocity_violation"
COLLISION = "joint_reflex"

# kLimitEps of rate_limiting.h in every unit, and beside it what rounding makes of third differences over 1 ms.
_EPSILON, _ROUNDING = 1e-3, 1e-6
# What a joint may be measured past a limit, rad and rad/s: a servo's ripple, and an encoder's noise differentiated.
_RIPPLE_RAD, _RIPPLE_RAD_S = 2e-3, 0.05


@dataclass(frozen=True)
class Reflex:
    """Why a Franka stopped.

    Attributes:
        error: name of the first of its errors, as in franka_msgs/Errors.
        joint: the joint that is furthest past the limit.
        value: what was found, rad, rad/s, rad/s^2, rad/s^3 or N m.
        limit: what is allowed.
        errors: all errors of that cycle.
    """

    error: str
    joint: str
    value: float
    limit: float
    errors: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.errors)}: {self.joint} at {self.value:.6g}, limit {self.limit:.6g}"


class FrankaStream:
    """The motion generator's check of every cycle, and of what is measured.

    Args:
        joints: of the arm.
    """

    def __init__(self, joints: Sequence[JointConfig]) -> None:
        self._names = tuple(joint.name for joint in joints)
        self.limits = StreamLimits(joints)
        self.begin(np.array([joint.home_rad for joint in joints]))

    def begin(self, positions: FloatArray) -> None:
        """A motion begins at rest, (n,) rad."""
        self._differences = Differences(positions, CYCLE_S)

    def step(self, positions: FloatArray) -> Reflex | None:
        """What comes of the positions, (n,) rad, that are desired in the next cycle."""
        velocity, acceleration, jerk = differences = self._differences.step(positions)
        limits = self.limits
        limits.note(positions, differences)
        lower, upper = limits.velocity_bounds(positions)
        return self._judge(
            (POSITION, positions, limits.lower, limits.upper, _ROUNDING),
            (VELOCITY, velocity, lower, upper, _EPSILON),
            (ACCELERATION, acceleration, -limits.acceleration, limits.acceleration, _EPSILON + 1e-4),
            (JERK, jerk, -limits.jerk, limits.jerk, _EPSILON + 1e-4),
        )

    def measure(self, positions: FloatArray, velocities: FloatArray) -> Reflex | None:
        """What comes of measured positions, (n,) rad, and velocities, (n,) rad/s, whatever the interface."""
        lower, upper = self.limits.velocity_bounds(positions)
        return self._judge(
            (MEASURED_POSITION, positions, self.limits.lower, self.limits.upper, _RIPPLE_RAD),
            (MEASURED_VELOCITY, velocities, lower, upper, _RIPPLE_RAD_S),
        )

    def collide(self, torques_nm: FloatArray, thresholds_nm: FloatArray) -> Reflex | None:
        """What comes of outside torques, (n,) N m."""
        return self._judge((COLLISION, torques_nm, -thresholds_nm, thresholds_nm, 0.0))

    def _judge(self, *checks: tuple[str, FloatArray, FloatArray, FloatArray, float]) -> Reflex | None:
        found = list(self._find(*checks))
        if not found:
            return None
        error, joint, value, limit = found[0]
        return Reflex(error, joint, value, limit, tuple(name for name, *_ in found))

    def _find(
        self, *checks: tuple[str, FloatArray, FloatArray, FloatArray, float]
    ) -> Iterator[tuple[str, str, float, float]]:
        for name, values, lower, upper, slack in checks:
            over = np.maximum(values - upper, lower - values)
            allowed = slack + _ROUNDING * np.maximum(np.abs(lower), np.abs(upper))
            # Written so that NaN is found too.
            if not (over <= allowed).all():
                worst = int(np.argmax(over - allowed))
                value = float(values[worst])
                is_above = value - upper[worst] > lower[worst] - value
                yield name, self._names[worst], value, float(upper[worst] if is_above else lower[worst])
