"""Which joint states can still come to rest inside the limits, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.types import FloatArray

BoolArray = NDArray[np.bool_]
_ROUNDING_RAD = 1e-9


@dataclass(frozen=True)
class GuardLimits:
    """What the guard keeps: (n,) each, rad and seconds.

    Attributes:
        lower: least position.
        upper: greatest position.
        velocity: both ways, as are the next two.
        acceleration: greatest.
        jerk: greatest.
        braking: deceleration that a stop before `lower` or `upper` counts on; None: all of the acceleration.
        drift_s: time for which a stop goes on at its speed before that; None: 0.
    """

    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray
    braking: FloatArray | None = None
    drift_s: FloatArray | None = None

    @property
    def greatest_braking(self) -> FloatArray:
        """(n,) deceleration that a stop counts on."""
        return self.acceleration if self.braking is None else self.braking

    @property
    def drift(self) -> FloatArray:
        """(n,) s for which a stop goes on before it brakes."""
        return np.zeros_like(self.acceleration) if self.drift_s is None else self.drift_s


def can_stop(
    positions: FloatArray, velocities: FloatArray, accelerations: FloatArray, limits: GuardLimits
) -> BoolArray:
    """Which joints, braking now, come to rest inside their position limits and keep the velocity limit, (n,) bool."""
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = np.abs(velocities + 0.5 * accelerations * np.abs(accelerations) / limits.jerk)
    keeps_velocity = (peak <= limits.velocity * (1.0 + _ROUNDING_RAD)) | (accelerations == 0.0)
    above = positions + stopping_reach(velocities, accelerations, limits) <= limits.upper + _ROUNDING_RAD
    below = positions - stopping_reach(-velocities, -accelerations, limits) >= limits.lower - _ROUNDING_RAD
    return np.asarray(above & below & keeps_velocity)


def stopping_reach(velocity: FloatArray, acceleration: FloatArray, limits: GuardLimits) -> FloatArray:
    """How far up, (n,) rad, each joint still goes when it brakes as hard as it may from now on.

    A joint at (velocity, acceleration) is on a stop that began, or after taking back its acceleration will begin, at
    acceleration zero with the velocity `speed`, `way` away from here; a stop from `speed` is a double S.

    Source: Biagiotti and Melchiorri, "Trajectory Planning for Automatic Machines and Robots", 2008, section 3.4.
    """
    a, j = limits.greatest_braking, limits.jerk
    size = np.abs(acceleration)
    with np.errstate(divide="ignore", invalid="ignore"):
        swing = 0.5 * size * size / j
        speed = velocity + swing
        way = np.sign(acceleration) * (velocity + 2.0 / 3.0 * swing) * size / j
        long_stop = 0.5 * speed * (speed / a + a / j)
        short_stop = speed * np.sqrt(np.maximum(speed, 0.0) / j)
        stop = way + np.where(speed >= a * a / j, long_stop, short_stop)
        if limits.drift_s is not None:
            stop = stop + limits.drift_s * speed
        # Braking harder than the speed needs: the joint turns round while the acceleration is taken back.
        turn_s = (size - np.sqrt(np.maximum(size * size - 2.0 * j * velocity, 0.0))) / j
        turn = velocity * turn_s - 0.5 * size * turn_s**2 + j * turn_s**3 / 6.0
    turns = (acceleration < 0.0) & (velocity <= swing)
    reach = np.where(turns, np.where(velocity > 0.0, turn, 0.0), np.where(speed > 0.0, stop, 0.0))
    is_still = (velocity == 0.0) & (acceleration == 0.0)
    return np.where(is_still, 0.0, np.maximum(np.where(np.isnan(reach), np.inf, reach), 0.0))
