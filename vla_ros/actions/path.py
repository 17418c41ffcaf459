"""A smooth curve through timed points, and the blend that joins it to the motion in progress.

Curves live in plain vectors: joints in rad, tool poses as position and a rotation vector in base axes relative to a
reference rotation, unwrapped so that it may pass 180 degrees.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from vla_ros.geometry import rotations
from vla_ros.geometry.rotations import skew
from vla_ros.types import FloatArray


class SplinePath:
    """A C2 cubic through points that comes to rest at its last one and stays there.

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
        """Value, first and second derivative at a time; before the start those of the start."""
        if time_s >= self.end_s or len(self._times) == 1:
            return self._last, self._zero, self._zero
        segment = max(0, bisect_right(self._times, time_s) - 1)
        t = max(0.0, time_s - self._times[segment])
        c3, c2, c1, c0 = self._coefficients[segment]
        return ((c3 * t + c2) * t + c1) * t + c0, (3.0 * c3 * t + 2.0 * c2) * t + c1, 6.0 * c3 * t + 2.0 * c2


@dataclass(frozen=True)
class DecayingOffset:
    """A quintic that starts with a given value, velocity and acceleration and ends at zero in all three.

    Added to a new path it makes the motion leave the old one without a step in position, velocity or acceleration: the
    minimum-jerk way between two moving states (Flash and Hogan, J. Neuroscience 1985), relative to the new path.

    Attributes:
        start_s: when it starts.
        duration_s: when it has gone.
        coefficients: (6, d), constant term first, in time since start.
    """

    start_s: float
    duration_s: float
    coefficients: FloatArray

    @classmethod
    def between(
        cls, start_s: float, duration_s: float, value: FloatArray, velocity: FloatArray, acceleration: FloatArray
    ) -> DecayingOffset:
        """The offset that begins with (value, velocity, acceleration) at start_s."""
        T = duration_s
        c0, c1, c2 = value, velocity, 0.5 * acceleration
        # Solves value = velocity = acceleration = 0 at T for the three upper coefficients.
        r0 = -(c0 + c1 * T + c2 * T**2)
        r1 = -(c1 + 2.0 * c2 * T)
        r2 = -2.0 * c2
        c3 = (10.0 * r0 - 4.0 * r1 * T + 0.5 * r2 * T**2) / T**3
        c4 = (-15.0 * r0 + 7.0 * r1 * T - r2 * T**2) / T**4
        c5 = (6.0 * r0 - 3.0 * r1 * T + 0.5 * r2 * T**2) / T**5
        return cls(start_s, duration_s, np.stack([c0, c1, c2, c3, c4, c5]))

    def sample(self, time_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value and two derivatives; zero once it has gone."""
        t = time_s - self.start_s
        if t >= self.duration_s:
            zero = np.zeros_like(self.coefficients[0])
            return zero, zero, zero
        t = max(0.0, t)
        c0, c1, c2, c3, c4, c5 = self.coefficients
        value = ((((c5 * t + c4) * t + c3) * t + c2) * t + c1) * t + c0
        velocity = (((5.0 * c5 * t + 4.0 * c4) * t + 3.0 * c3) * t + 2.0 * c2) * t + c1
        return value, velocity, ((20.0 * c5 * t + 12.0 * c4) * t + 6.0 * c3) * t + 2.0 * c2


def needed_duration_s(
    value: FloatArray, velocity: FloatArray, max_velocity: FloatArray, max_acceleration: FloatArray
) -> float:
    """The time in which a DecayingOffset that starts with (value, velocity) keeps to some velocity and acceleration.

    Args:
        value: (d,) at the start.
        velocity: (d,) at the start.
        max_velocity: (d,) positive.
        max_acceleration: (d,) positive.

    The quintic from value c alone peaks at a speed of 15/8 c/T and an acceleration of 10/sqrt(3) c/T^2, the one from
    velocity v alone at an acceleration of 3.94 v/T; the peaks are added up, which errs to the long side.
    """
    c, v = np.abs(value), np.abs(velocity)
    for_velocity_s = 1.875 * c / max_velocity
    ramp = 3.94 * v
    for_acceleration_s = (ramp + np.sqrt(ramp**2 + 4.0 * 5.7735 * max_acceleration * c)) / (2.0 * max_acceleration)
    return float(np.max(np.maximum(for_velocity_s, for_acceleration_s)))


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
