"""A smooth curve through timed points.

Curves live in plain vectors: joints in rad, tool poses as position and a rotation vector in base axes relative to a
reference rotation, unwrapped so that it may pass 180 degrees.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgtsv

from vla_ros.geometry import rotations
from vla_ros.geometry.rotation_forms import nearest_rotvec
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class OffsetLimits:
    """What leading over to a new path may take for itself, (d,) each, per second and its powers.

    For joints each entry holds for its joint. For the tool, d = 6, each holds for the norm of its three, translation
    and rotation. Where one is 0 nothing is led over.
    """

    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray

    @cached_property
    def parts(self) -> tuple[OffsetLimits, OffsetLimits]:
        """The tool's: those of translation, and of rotation."""
        translation, rotation = (
            OffsetLimits(self.velocity[rows], self.acceleration[rows], self.jerk[rows])
            for rows in (slice(0, 3), slice(3, 6))
        )
        return translation, rotation

    @cached_property
    def are_positive(self) -> NDArray[np.bool_]:
        """(d,) where something may be led over."""
        return np.asarray((self.velocity > 0.0) & (self.acceleration > 0.0) & (self.jerk > 0.0))

    @cached_property
    def norms(self) -> tuple[float, float, float]:
        """The first entries: where all are equal, limits of norms."""
        return float(self.velocity[0]), float(self.acceleration[0]), float(self.jerk[0])


class SplinePath:
    """A C2 cubic through points that comes to rest at its last one and stays there; a straight line leads to the first.

    Args:
        times_s: (n,) strictly increasing, on any clock.
        values: (n, d).

    Raises:
        ValueError: if the points lie so close in time that no finite curve leads through them.
    """

    def __init__(self, times_s: FloatArray, values: FloatArray) -> None:
        self._times: list[float] = times_s.tolist()
        self.start_s, self.end_s = self._times[0], self._times[-1]
        self._rest = np.zeros((3, values.shape[1]))
        self._rest[0] = values[-1]
        if len(self._times) > 1:
            self._coefficients = _spline(times_s, values)

    def sample(self, time_s: float) -> FloatArray:
        """(3, d) value, first and second derivative at a time. Not to be written to."""
        if time_s >= self.end_s or len(self._times) == 1:
            return self._rest
        segment = max(0, bisect_right(self._times, time_s) - 1)
        t = time_s - self._times[segment]
        if t < 0.0:
            powers = [[1.0, t, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        else:
            powers = [[1.0, t, t * t, t * t * t], [0.0, 1.0, 2.0 * t, 3.0 * t * t], [0.0, 0.0, 2.0, 6.0 * t]]
        return np.asarray(np.array(powers) @ self._coefficients[segment])


def _spline(times_s: FloatArray, values: FloatArray) -> FloatArray:
    """(n - 1, 4, d) coefficients by rising power; no bend at the first point, no slope at the last.

    Source: de Boor, "A Practical Guide to Splines", ch. IV: the slopes at the points solve a tridiagonal system.
    """
    h = times_s[1:] - times_s[:-1]
    rise = (values[1:] - values[:-1]) / h[:, None]
    count = len(times_s)
    lower, diagonal, upper = np.empty(count - 1), np.empty(count), np.empty(count - 1)
    right = np.empty_like(values)
    diagonal[0], upper[0], right[0] = 2.0, 1.0, 3.0 * rise[0]
    lower[:-1], upper[1:] = h[1:], h[:-1]
    diagonal[1:-1] = 2.0 * (h[1:] + h[:-1])
    right[1:-1] = 3.0 * (h[1:, None] * rise[:-1] + h[:-1, None] * rise[1:])
    diagonal[-1], lower[-1], right[-1] = 1.0, 0.0, 0.0
    *_, slopes, info = dgtsv(lower, diagonal, upper, right)
    if info != 0 or not np.isfinite(slopes).all():
        raise ValueError(f"points {float(h.min())} s apart are too close in time")
    h = h[:, None]
    out = np.empty((count - 1, 4, values.shape[1]))
    out[:, 0], out[:, 1] = values[:-1], slopes[:-1]
    out[:, 2] = (3.0 * rise - 2.0 * slopes[:-1] - slopes[1:]) / h
    out[:, 3] = (slopes[:-1] + slopes[1:] - 2.0 * rise) / (h * h)
    return out


def unwrapped_rotvecs(R_reference: FloatArray, R: FloatArray) -> FloatArray:
    """(n, 3) rotation vectors in base axes that turn the reference into each R, each nearest to the one before.

    Args:
        R_reference: (3, 3).
        R: (n, 3, 3).
    """
    rotvecs = rotations.matrix_to_rotvec(R @ R_reference.T)
    # A vector as long as this flips past a half turn only together with a step as long.
    steps = rotvecs[1:] - rotvecs[:-1]
    if len(rotvecs) < 2 or float((steps * steps).sum(axis=1).max()) < np.pi**2:
        return rotvecs
    for index in range(1, len(rotvecs)):
        rotvecs[index] = nearest_rotvec(rotvecs[index], rotvecs[index - 1])
    return rotvecs
