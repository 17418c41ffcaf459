"""Velocity, acceleration and jerk of a stream as an arm's controller sees them, and how near the limits they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.robots.config import JointConfig
from vla_ros.robots.velocity_limits import VelocityLimits
from vla_ros.types import FloatArray


class Differences:
    """Backward differences of a stream of positions, a new one every period.

    Args:
        positions: (n,) rad, where the stream rests before it begins.
        dt_s: its period.
    """

    def __init__(self, positions: FloatArray, dt_s: float) -> None:
        self._dt_s = dt_s
        self._position = positions
        self._velocity = self._acceleration = np.zeros(len(positions))

    def step(self, positions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The next positions, (n,) rad; returns (n,) rad/s, rad/s^2 and rad/s^3."""
        velocity = (positions - self._position) / self._dt_s
        acceleration = (velocity - self._velocity) / self._dt_s
        jerk = (acceleration - self._acceleration) / self._dt_s
        self._position, self._velocity, self._acceleration = positions, velocity, acceleration
        return velocity, acceleration, jerk


@dataclass(frozen=True)
class Extremes:
    """The largest of what an arm was told, over all joints, as multiples of the limits."""

    velocity: float = 0.0
    acceleration: float = 0.0
    jerk: float = 0.0


class StreamLimits:
    """The limits of all joints at once, and what of them a stream has used.

    Args:
        joints: of the arm.
    """

    def __init__(self, joints: Sequence[JointConfig]) -> None:
        self.lower, self.upper = np.array([joint.position_rad for joint in joints]).T
        self.acceleration = np.array([joint.acceleration_rad_s2 for joint in joints])
        self.jerk = np.array([joint.jerk_rad_s3 for joint in joints])
        velocity = np.array([joint.velocity_rad_s for joint in joints])
        self._velocity = VelocityLimits(velocity, [joint.velocity_by_position for joint in joints])
        self.extremes = Extremes()

    def velocity_bounds(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Least and largest velocities, (n,) rad/s, at positions."""
        return self._velocity.bounds(positions)

    def note(self, positions: FloatArray, differences: tuple[FloatArray, FloatArray, FloatArray]) -> None:
        """Takes a period of the stream into `extremes`."""
        velocity, acceleration, jerk = differences
        lower, upper = self.velocity_bounds(positions)
        worst, last = (
            self.extremes,
            Extremes(
                max(_multiple(velocity, upper), _multiple(-velocity, -lower)),
                _multiple(np.abs(acceleration), self.acceleration),
                _multiple(np.abs(jerk), self.jerk),
            ),
        )
        self.extremes = Extremes(
            max(worst.velocity, last.velocity),
            max(worst.acceleration, last.acceleration),
            max(worst.jerk, last.jerk),
        )

    def forget(self) -> Extremes:
        """Returns the extremes so far and begins anew."""
        extremes, self.extremes = self.extremes, Extremes()
        return extremes


def _multiple(values: FloatArray, limits: FloatArray) -> float:
    """The largest value as a multiple of its limit; past a limit of 0 it is infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nanmax(values / limits, initial=0.0))
