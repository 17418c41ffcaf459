"""Rotations that move: from a rotation vector and its rates to angular velocity and acceleration, and back.

R = exp(rotvec) R_reference, rotvec, angular velocity and acceleration all in base axes. Plain floats: these run every
tick, where a NumPy call costs more than the numbers.

Source: left Jacobian of SO(3) and its inverse, Sola et al., "A micro Lie theory", 2018, eq. 145 and 146; the
accelerations are its time derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]

# Below, the closed forms lose digits; the series kept are exact to 1e-10 there.
_SERIES_RAD = 0.1


def cross(a: Sequence[float], b: Sequence[float]) -> Vector:
    """a x b."""
    (ax, ay, az), (bx, by, bz) = a, b
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def angular_motion(rotvec: Sequence[float], rate: Sequence[float], rate2: Sequence[float]) -> tuple[Vector, Vector]:
    """Angular velocity, rad/s, and acceleration, rad/s^2, of a rotation vector's first and second time derivative."""
    x, y, z = rotvec
    u, v, w = rate
    a, b, da, db = _coefficients(x * x + y * y + z * z)
    slope = x * u + y * v + z * w
    da, db = da * slope, db * slope
    # velocity = rate + a once + b twice, with once = rotvec x rate and twice = rotvec x once
    ox, oy, oz = y * w - z * v, z * u - x * w, x * v - y * u
    tx, ty, tz = y * oz - z * oy, z * ox - x * oz, x * oy - y * ox
    u2, v2, w2 = rate2
    px, py, pz = y * w2 - z * v2, z * u2 - x * w2, x * v2 - y * u2
    return (u + a * ox + b * tx, v + a * oy + b * ty, w + a * oz + b * tz), (
        u2 + a * px + da * ox + db * tx + b * (y * pz - z * py + v * oz - w * oy),
        v2 + a * py + da * oy + db * ty + b * (z * px - x * pz + w * ox - u * oz),
        w2 + a * pz + da * oz + db * tz + b * (x * py - y * px + u * oy - v * ox),
    )


def rotvec_rates(rotvec: Sequence[float], velocity: Vector, acceleration: Vector) -> tuple[Vector, Vector]:
    """The inverse of `angular_motion`: rates of a rotation vector shorter than a full turn."""
    zero = (0.0, 0.0, 0.0)
    rate = _inverse(rotvec, velocity)
    _, drift = angular_motion(rotvec, rate, zero)
    left = acceleration[0] - drift[0], acceleration[1] - drift[1], acceleration[2] - drift[2]
    return rate, _inverse(rotvec, left)


def _inverse(rotvec: Sequence[float], v: Vector) -> Vector:
    """Inverse of the left Jacobian, times v."""
    angle2 = rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2
    if angle2 < _SERIES_RAD**2:
        c = 1.0 / 12.0 + angle2 / 720.0 + angle2**2 / 30240.0
    else:
        half = 0.5 * math.sqrt(angle2)
        c = (1.0 - half / math.tan(half)) / angle2
    once = cross(rotvec, v)
    twice = cross(rotvec, once)
    return (
        v[0] - 0.5 * once[0] + c * twice[0],
        v[1] - 0.5 * once[1] + c * twice[1],
        v[2] - 0.5 * once[2] + c * twice[2],
    )


def _coefficients(t2: float) -> tuple[float, float, float, float]:
    """The left Jacobian's a = (1 - cos t) / t^2 and b = (t - sin t) / t^3, and their derivatives by t, over t."""
    if t2 < _SERIES_RAD**2:
        return (
            0.5 - t2 * (1.0 / 24.0 - t2 / 720.0),
            1.0 / 6.0 - t2 * (1.0 / 120.0 - t2 / 5040.0),
            -1.0 / 12.0 + t2 * (1.0 / 180.0 - t2 / 6720.0),
            -1.0 / 60.0 + t2 * (1.0 / 1260.0 - t2 / 60480.0),
        )
    t = math.sqrt(t2)
    sine, versine = math.sin(t), 1.0 - math.cos(t)
    a, b = versine / t2, (t - sine) / (t2 * t)
    return a, b, (sine / t - 2.0 * a) / t2, (a - 3.0 * b) / t2
