"""Velocity limits that depend on where a joint stands, as an FR3's do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.types import FloatArray


@dataclass(frozen=True)
class VelocityCurve:
    """How fast a joint may move towards one end of its range: `offset + sqrt(gain * way left)`, at least 0.

    That is the speed from which an even deceleration of half the gain just stops it, less a margin.

    Attributes:
        offset_rad_s: added to the square root; minus the margin.
        gain_rad_s2: what the way left is multiplied with.
        zero_rad: position from which the way left is counted.
    """

    offset_rad_s: float
    gain_rad_s2: float
    zero_rad: float

    def __post_init__(self) -> None:
        for key in ("offset_rad_s", "zero_rad"):
            if not math.isfinite(getattr(self, key)):
                raise ValueError(f"{key} is {getattr(self, key)}, it has to be finite")
        if not 0.0 <= self.gain_rad_s2 < math.inf:
            raise ValueError(f"gain_rad_s2 is {self.gain_rad_s2}, it has to be finite and 0 or more")


@dataclass(frozen=True)
class VelocityByPosition:
    """A joint's limits that tighten towards the ends of its range.

    Attributes:
        upper: of the velocity upwards, towards the upper end.
        lower: of the speed downwards, towards the lower end.
    """

    upper: VelocityCurve
    lower: VelocityCurve

    def speeds(self, position_rad: float) -> tuple[float, float]:
        """Limits of the speed downwards and upwards, rad/s."""
        lower, upper = self.lower, self.upper
        ways = (lower, position_rad - lower.zero_rad), (upper, upper.zero_rad - position_rad)
        down, up = (max(0.0, c.offset_rad_s + math.sqrt(max(0.0, c.gain_rad_s2 * way))) for c, way in ways)
        return down, up


class VelocityLimits:
    """The limits of all joints of an arm at once."""

    def __init__(self, velocity: FloatArray, by_position: Sequence[VelocityByPosition | None]) -> None:
        """
        Args:
            velocity: (n,) rad/s, what holds everywhere.
            by_position: what tightens it, joint by joint; None for nothing.
        """
        self._velocity = velocity
        self._is_constant = all(curves is None for curves in by_position)
        # The speeds downwards and upwards are sqrt(slope q + intercept) + offset, each part (2, n).
        self._slope, self._intercept = np.zeros((2, len(velocity))), np.zeros((2, len(velocity)))
        self._offset = np.array([velocity, velocity])
        for i, curves in enumerate(by_position):
            if curves is not None:
                for row, sign, curve in ((0, 1.0, curves.lower), (1, -1.0, curves.upper)):
                    self._slope[row, i] = sign * curve.gain_rad_s2
                    self._intercept[row, i] = -sign * curve.gain_rad_s2 * curve.zero_rad
                    self._offset[row, i] = curve.offset_rad_s

    def bounds(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `RobotModel.velocity_bounds`."""
        if self._is_constant:
            upper = np.full(q.shape, self._velocity)
            return -upper, upper
        slope, intercept, offset = self._slope, self._intercept, self._offset
        if q.ndim == 2:
            slope, intercept, offset = slope[:, None], intercept[:, None], offset[:, None]
        speed = np.sqrt(np.maximum(slope * q + intercept, 0.0)) + offset
        speed = np.minimum(np.maximum(speed, 0.0), self._velocity)
        return -speed[0], speed[1]
