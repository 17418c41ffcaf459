"""A smooth curve through timed points, and the blend that joins it to the motion in progress.

Curves live in plain vectors: joints in rad, tool poses as position and a rotation vector in base axes relative to a
reference rotation, unwrapped so that it may pass 180 degrees.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import ruckig
from scipy.interpolate import CubicSpline

from vla_ros.geometry import rotations
from vla_ros.geometry.rotations import skew
from vla_ros.types import FloatArray


class SplinePath:
    """A C2 cubic through points that comes to rest at its last one and stays there; a straight line leads to the first.

    Args:
        times_s: (n,) strictly increasing, on any clock.
        values: (n, d).
    """

    def __init__(self, times_s: FloatArray, values: FloatArray) -> None:
        self.start_s, self.end_s = float(times_s[0]), float(times_s[-1])
        self._times = [float(time) for time in times_s]
        self._last = np.array(values[-1], dtype=np.float64)
        self._zero = np.zeros_like(self._last)
        if len(times_s) > 1:
            spline = CubicSpline(times_s, values, bc_type=((2, self._zero), (1, self._zero)))
            self._coefficients = np.ascontiguousarray(np.moveaxis(spline.c, 1, 0))  # segment, power, dimension

    def sample(self, time_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, first and second derivative at a time."""
        if time_s >= self.end_s or len(self._times) == 1:
            return self._last, self._zero, self._zero
        segment = max(0, bisect_right(self._times, time_s) - 1)
        t = time_s - self._times[segment]
        c3, c2, c1, c0 = self._coefficients[segment]
        if t < 0.0:
            return c0 + c1 * t, c1, self._zero
        return ((c3 * t + c2) * t + c1) * t + c0, (3.0 * c3 * t + 2.0 * c2) * t + c1, 6.0 * c3 * t + 2.0 * c2


@dataclass(frozen=True)
class OffsetLimits:
    """What leading over to a new path may take for itself, (d,) each, positive, per second and its powers."""

    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray


class DecayingOffset:
    """A curve from a given value, velocity and acceleration to zero in all three, as fast as its limits allow.

    Added to a new path it makes the motion leave the old one without a step in position, velocity or acceleration.
    Being time-optimal it is consistent: one that begins in the middle of another takes no longer than what was left of
    that, so a stream of chunks that confirm each other brings the motion onto their path and nothing swings out.

    Args:
        start_s: when it starts.
        value: (d,) at the start.
        velocity: (d,) at the start.
        acceleration: (d,) at the start, cut to its limit.
        limits: a velocity past them is brought back first.

    Raises:
        ValueError: if no such curve is found.

    Source: Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation", RSS 2021 (ruckig).
    """

    def __init__(
        self, start_s: float, value: FloatArray, velocity: FloatArray, acceleration: FloatArray, limits: OffsetLimits
    ) -> None:
        count = len(value)
        given = ruckig.InputParameter(count)
        given.synchronization = ruckig.Synchronization.No
        given.current_position, given.current_velocity = value.tolist(), velocity.tolist()
        given.current_acceleration = np.clip(acceleration, -limits.acceleration, limits.acceleration).tolist()
        given.target_position = given.target_velocity = given.target_acceleration = [0.0] * count
        given.max_velocity, given.max_acceleration = limits.velocity.tolist(), limits.acceleration.tolist()
        given.max_jerk = limits.jerk.tolist()
        self._trajectory = ruckig.Trajectory(count)
        try:
            result = ruckig.Ruckig(count).calculate(given, self._trajectory)
        except ruckig.RuckigError as error:
            raise ValueError(f"no way from offset {value}, velocity {velocity} to zero: {error}") from error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise ValueError(f"no way from offset {value}, velocity {velocity} to zero: {result}")
        self.start_s = start_s
        self.duration_s = float(self._trajectory.duration)
        self._zero = np.zeros(count)

    def sample(self, time_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value and two derivatives; zero once it has gone."""
        t = max(0.0, time_s - self.start_s)
        if t >= self.duration_s:
            return self._zero, self._zero, self._zero
        value, velocity, acceleration = self._trajectory.at_time(t)
        return np.array(value), np.array(velocity), np.array(acceleration)


def unwrapped_rotvecs(R_reference: FloatArray, R: FloatArray) -> FloatArray:
    """(n, 3) rotation vectors in base axes that turn the reference into each R, each nearest to the one before.

    Args:
        R_reference: (3, 3).
        R: (n, 3, 3).
    """
    rotvecs = rotations.matrix_to_rotvec(R @ R_reference.T)
    for index in range(1, len(rotvecs)):
        rotvec, previous = rotvecs[index], rotvecs[index - 1]
        angle = float(np.linalg.norm(rotvec))
        axis = rotvec / angle if angle > 1e-9 else previous / max(float(np.linalg.norm(previous)), 1e-9)
        turns = round((float(previous @ axis) - angle) / (2.0 * np.pi))
        rotvecs[index] = rotvec + 2.0 * np.pi * turns * axis
    return rotvecs


def angular_velocity(rotvec: FloatArray, rate: FloatArray) -> FloatArray:
    """Angular velocity in base axes of R = exp(rotvec) R_reference whose rotation vector changes at `rate`, rad/s.

    Source: left Jacobian of SO(3), Sola et al., "A micro Lie theory", 2018, eq. 145.
    """
    angle = math.sqrt(float(rotvec @ rotvec))
    if angle < 1e-6:
        return rate + 0.5 * (skew(rotvec) @ rate)
    a = (1.0 - math.cos(angle)) / angle**2
    b = (angle - math.sin(angle)) / angle**3
    K = skew(rotvec)
    first = K @ rate
    return np.asarray(rate + a * first + b * (K @ first), dtype=np.float64)
