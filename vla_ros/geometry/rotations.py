"""Rotations in the forms that policies use, batched over leading dimensions, for NumPy arrays and torch tensors.

R is a rotation matrix (..., 3, 3); quat_xyzw is (..., 4) with the scalar last, and q and -q are the same rotation; a
rotation vector is axis times angle, rad; rpy are fixed-axis angles about x, y, z (R = Rz Ry Rx), the convention of URDF
and tf_transformations' `sxyz`.

What is no rotation raises in NumPy. A tensor isn't looked at, since that waits for the accelerator: the result is then
no rotation, with a finite gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vla_ros.geometry.arrays import Array, with_namespace
from vla_ros.types import FloatArray

# Squares of angles, rad^2, and of tangents below which closed forms that divide by them give way to their series. Four
# terms are exact to the last digit there, and so are their derivatives, which the closed forms lose much earlier.
_SMALL_SQUARE = 1e-3
_SMALL_TANGENT_SQUARE = 1e-4
_SMALL_ANGLE_RAD = 1e-7
# So many rotations cost less one by one in plain floats than together in NumPy, whose calls cost more than the numbers.
FEW = 16

_SINC_SERIES = (1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0)
COSC_SERIES = (1.0 / 2.0, -1.0 / 24.0, 1.0 / 720.0, -1.0 / 40320.0)
_ARCTANGENT_SERIES = (1.0, -1.0 / 3.0, 1.0 / 5.0, -1.0 / 7.0)


def rotvec_to_matrix(rotvec: Array) -> Array:
    """Exponential map of SO(3): (..., 3) rad to (..., 3, 3).

    Source: Rodrigues' formula.
    """
    if isinstance(rotvec, np.ndarray) and rotvec.ndim == 1:
        return _one_rotvec_to_matrix(*rotvec.tolist())
    xp, rotvec = with_namespace(rotvec)
    is_small, t, angle = split_small(xp, xp.sum(rotvec * rotvec, axis=-1))
    a = xp.where(is_small, power_series(_SINC_SERIES, t), xp.sin(angle) / angle)
    b = xp.where(is_small, power_series(COSC_SERIES, t), 2.0 * (xp.sin(0.5 * angle) / angle) ** 2)
    return identity_plus(xp, rotvec, a, b)


def matrix_to_rotvec(R: Array) -> Array:
    """Logarithm of SO(3): (..., 3, 3) to (..., 3) rad, of length at most pi."""
    if isinstance(R, np.ndarray) and _is_few(R, 2):
        return _one_by_one(_one_matrix_to_rotvec, R.reshape(-1, 3, 3), R.shape[:-1])
    xp, R = with_namespace(R)
    multiple = _quat_multiple(xp, R)
    multiple = xp.where(multiple[..., 3:] < 0.0, -multiple, multiple)
    # Sine and cosine of half the angle, both times a number that cancels.
    v, cosine = multiple[..., :3], multiple[..., 3:]
    square = xp.sum(v * v, axis=-1, keepdims=True)
    is_small = square < _SMALL_TANGENT_SQUARE * cosine**2
    sine, divisor = xp.sqrt(xp.where(is_small, 1.0, square)), xp.where(is_small, cosine, 1.0)
    series = power_series(_ARCTANGENT_SERIES, xp.where(is_small, square, 0.0) / divisor**2) / divisor
    return 2.0 * v * xp.where(is_small, series, xp.arctan2(sine, cosine) / sine)


def quat_xyzw_to_matrix(quat_xyzw: Array) -> Array:
    """(..., 4) of any non-zero length to (..., 3, 3).

    Raises:
        ValueError: if a quaternion is zero or not finite.
    """
    if isinstance(quat_xyzw, np.ndarray) and _is_few(quat_xyzw, 1):
        return _one_by_one(_one_quat_to_matrix, quat_xyzw.reshape(-1, 4), (*quat_xyzw.shape[:-1], 3, 3))
    xp, quat = with_namespace(quat_xyzw)
    q = _unit(xp, quat, "quaternion", quat)
    return identity_plus(xp, q[..., :3], 2.0 * q[..., 3], 2.0)


def matrix_to_quat_xyzw(R: Array) -> Array:
    """(..., 3, 3) to unit (..., 4); the sign is chosen so that the largest component is positive.

    Source: Shepperd, "Quaternion from rotation matrix", J. Guidance and Control 1978 (largest of four pivots).
    """
    if isinstance(R, np.ndarray) and R.ndim == 2:
        return _one_matrix_to_quat(R.tolist())
    xp, R = with_namespace(R)
    multiple = _quat_multiple(xp, R)
    return multiple / xp.linalg.norm(multiple, axis=-1, keepdims=True)


def rpy_to_matrix(rpy: Array) -> Array:
    """(..., 3) roll, pitch, yaw in rad to (..., 3, 3)."""
    xp, rpy = with_namespace(rpy)
    cosines, sines = xp.cos(rpy), xp.sin(rpy)
    cr, cp, cy = cosines[..., 0], cosines[..., 1], cosines[..., 2]
    sr, sp, sy = sines[..., 0], sines[..., 1], sines[..., 2]
    columns_0 = [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr]
    columns_1 = [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr]
    return xp.stack([*columns_0, *columns_1, -sp, cp * sr, cp * cr], axis=-1).reshape((*cr.shape, 3, 3))


def matrix_to_rpy(R: Array) -> Array:
    """(..., 3, 3) to roll, pitch, yaw in rad; at pitch = +-90 degrees yaw is taken as 0."""
    xp, R = with_namespace(R)
    square = R[..., 0, 0] ** 2 + R[..., 1, 0] ** 2
    is_locked = square < 1e-18
    cos_pitch = xp.where(is_locked, 0.0, xp.sqrt(xp.where(is_locked, 1.0, square)))
    roll = xp.arctan2(xp.where(is_locked, -R[..., 1, 2], R[..., 2, 1]), xp.where(is_locked, R[..., 1, 1], R[..., 2, 2]))
    pitch = xp.arctan2(-R[..., 2, 0], cos_pitch)
    yaw = xp.arctan2(xp.where(is_locked, 0.0, R[..., 1, 0]), xp.where(is_locked, 1.0, R[..., 0, 0]))
    return xp.stack([roll, pitch, yaw], axis=-1)


def rot6d_to_matrix(rot6d: Array) -> Array:
    """(..., 6), the first two *columns* of R one after the other, to (..., 3, 3) by Gram-Schmidt.

    Raises:
        ValueError: if the two vectors are zero, parallel or not finite.

    Source: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, eq. 15.
    """
    xp, rot6d = with_namespace(rot6d)
    x = _unit(xp, rot6d[..., :3], "6D rotation", rot6d)
    b = _unit(xp, rot6d[..., 3:], "6D rotation", rot6d)
    y = _unit(xp, b - xp.sum(x * b, axis=-1, keepdims=True) * x, "6D rotation", rot6d)
    return xp.stack([x, y, xp.cross(x, y, axis=-1)], axis=-1)


def matrix_to_rot6d(R: Array) -> Array:
    """(..., 3, 3) to its first two columns, (..., 6)."""
    xp, R = with_namespace(R)
    return xp.concatenate([R[..., :, 0], R[..., :, 1]], axis=-1)


def rot6d_rows_to_matrix(rot6d: Array) -> Array:
    """As `rot6d_to_matrix`, from the first two *rows* (UMI, OpenVLA's DROID helper)."""
    return rot6d_to_matrix(rot6d).swapaxes(-1, -2)


def matrix_to_rot6d_rows(R: Array) -> Array:
    """(..., 3, 3) to its first two rows, (..., 6)."""
    return matrix_to_rot6d(R.swapaxes(-1, -2))


def angle_between(R_a: Array, R_b: Array) -> Array:
    """Geodesic distance of two rotations, rad in [0, pi]. A tensor's gradient is 0 where they are the same."""
    xp, rotvec = with_namespace(matrix_to_rotvec(R_a.swapaxes(-1, -2) @ R_b))
    return xp.linalg.norm(rotvec, axis=-1)


def slerp(R_a: Array, R_b: Array, fraction: Array | float) -> Array:
    """Rotation on the geodesic from R_a (fraction 0) to R_b (fraction 1)."""
    rotvec = matrix_to_rotvec(R_a.swapaxes(-1, -2) @ R_b)
    scale = fraction if isinstance(fraction, int | float) else fraction[..., None]
    return R_a @ rotvec_to_matrix(scale * rotvec)


def split_small(xp: Any, square: Array) -> tuple[Array, Array, Array]:
    """Where an angle is small, its square for series there, and the angle for closed forms elsewhere.

    Series and closed form are both evaluated everywhere; where one isn't taken it gets a harmless number, so that no
    derivative is NaN.
    """
    is_small = square < _SMALL_SQUARE
    return is_small, xp.where(is_small, square, 0.0), xp.sqrt(xp.where(is_small, 1.0, square))


def power_series(c: tuple[float, float, float, float], t: Array) -> Array:
    """c0 + c1 t + c2 t^2 + c3 t^3."""
    return c[0] + t * (c[1] + t * (c[2] + t * c[3]))


def identity_plus(xp: Any, v: Array, a: Array | float, b: Array | float) -> Array:
    """(..., 3, 3) I + a K + b K^2 with K the cross product by v: the shape of all functions of a rotation vector."""
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    return xp.stack(_entries(x, y, z, a, b), axis=-1).reshape((*x.shape, 3, 3))


def _entries(x: Any, y: Any, z: Any, a: Any, b: Any) -> list[Any]:
    ax, ay, az = a * x, a * y, a * z
    bx, by, bz = b * x, b * y, b * z
    bxy, bxz, byz = bx * y, bx * z, by * z
    bxx, byy, bzz = bx * x, by * y, bz * z
    return [
        *(1.0 - byy - bzz, bxy - az, bxz + ay),
        *(bxy + az, 1.0 - bxx - bzz, byz - ax),
        *(bxz - ay, byz + ax, 1.0 - bxx - byy),
    ]


def _quat_multiple(xp: Any, R: Any) -> Any:
    m00, m11, m22 = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    xx, yy, zz, ww = 1.0 + m00 - m11 - m22, 1.0 - m00 + m11 - m22, 1.0 - m00 - m11 + m22, 1.0 + m00 + m11 + m22
    xy, xz, yz = R[..., 0, 1] + R[..., 1, 0], R[..., 0, 2] + R[..., 2, 0], R[..., 1, 2] + R[..., 2, 1]
    wx, wy, wz = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    # Each is the quaternion times four times one of its components: the one with the largest is taken.
    best, largest = xp.stack([wx, wy, wz, ww], axis=-1), ww
    for pivot, multiple in ((xx, (xx, xy, xz, wx)), (yy, (xy, yy, yz, wy)), (zz, (xz, yz, zz, wz))):
        is_larger = pivot > largest
        best = xp.where(is_larger[..., None], xp.stack(multiple, axis=-1), best)
        largest = xp.where(is_larger, pivot, largest)
    return best


def _unit(xp: Any, v: Any, what: str, given: Any) -> Any:
    square = xp.sum(v * v, axis=-1, keepdims=True)
    is_none = square < 1e-18
    if xp is np and not (np.isfinite(square).all() and not is_none.any()):
        problem = "zero or not finite" if what == "quaternion" else "its vectors are zero, parallel or not finite"
        raise ValueError(f"{what} {given.tolist()} isn't a rotation: {problem}")
    return v / xp.sqrt(xp.where(is_none, 1.0, square))


# A control loop turns single rotations a thousand times a second, and a chunk's few while it waits: these formulas once
# more in plain floats, held to the batched ones by a test.


def _is_few(array: FloatArray, own: int) -> bool:
    """Whether it is one rotation of so many dimensions, or a short list of them."""
    return array.ndim == own or (array.ndim == own + 1 and 0 < len(array) <= FEW)


def _one_by_one(convert: Callable[[list[Any]], list[float]], array: FloatArray, shape: tuple[int, ...]) -> Any:
    return np.array([convert(one) for one in array.tolist()]).reshape(shape)


def _one_rotvec_to_matrix(x: float, y: float, z: float) -> Any:
    square = x * x + y * y + z * z
    if square < _SMALL_ANGLE_RAD**2:
        a, b = 1.0, 0.5
    else:
        angle = math.sqrt(square)
        a, b = math.sin(angle) / angle, (1.0 - math.cos(angle)) / square
    return np.array(_entries(x, y, z, a, b)).reshape(3, 3)


def _one_quat_to_matrix(quat: list[float]) -> list[float]:
    x, y, z, w = quat
    square = x * x + y * y + z * z + w * w
    if not 1e-18 <= square < math.inf:
        raise ValueError(f"quaternion {[x, y, z, w]} isn't a rotation: zero or not finite")
    scale = 2.0 / square
    return _entries(x, y, z, scale * w, scale)


def _one_matrix_to_quat(rows: list[list[float]]) -> Any:
    x, y, z, w = _one_quat_multiple(rows)
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    return np.array([x / norm, y / norm, z / norm, w / norm])


def _one_matrix_to_rotvec(rows: list[list[float]]) -> list[float]:
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = rows
    w = 1.0 + m00 + m11 + m22
    if w >= 1.0:  # half of the angle is at most 60 degrees: no other component need be looked at
        x, y, z = m21 - m12, m02 - m20, m10 - m01
    else:
        x, y, z, w = _one_quat_multiple(rows)
        if w < 0.0:
            x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 / w if sine < _SMALL_ANGLE_RAD * w else 2.0 * math.atan2(sine, w) / sine
    return [scale * x, scale * y, scale * z]


def _one_quat_multiple(rows: list[list[float]]) -> tuple[float, float, float, float]:
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = rows
    xx, yy, zz, ww = 1.0 + m00 - m11 - m22, 1.0 - m00 + m11 - m22, 1.0 - m00 - m11 + m22, 1.0 + m00 + m11 + m22
    largest = max(ww, xx, yy, zz)
    if largest == ww:
        return m21 - m12, m02 - m20, m10 - m01, ww
    if largest == xx:
        return xx, m01 + m10, m02 + m20, m21 - m12
    if largest == yy:
        return m01 + m10, yy, m12 + m21, m02 - m20
    return m02 + m20, m12 + m21, zz, m10 - m01
