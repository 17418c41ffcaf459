"""Rotations in the forms that policies use, all batched over leading dimensions.

R is a rotation matrix (..., 3, 3); quat_xyzw is (..., 4) with the scalar last; a rotation vector is axis times angle,
rad; rpy are fixed-axis angles about x, y, z (R = Rz Ry Rx), the convention of URDF and tf_transformations' `sxyz`.
"""

from __future__ import annotations

import math

import numpy as np

from vla_ros.types import FloatArray

_SMALL_ANGLE_RAD = 1e-7


def skew(v: FloatArray) -> FloatArray:
    """(..., 3) to the (..., 3, 3) matrix of the cross product v x."""
    out = np.zeros((*v.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -v[..., 2], v[..., 1]
    out[..., 1, 0], out[..., 1, 2] = v[..., 2], -v[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -v[..., 1], v[..., 0]
    return out


def rotvec_to_matrix(rotvec: FloatArray) -> FloatArray:
    """Exponential map of SO(3): (..., 3) rad to (..., 3, 3).

    Source: Rodrigues' formula; Taylor series below 1e-7 rad.
    """
    rotvec = np.asarray(rotvec, dtype=np.float64)
    if rotvec.ndim == 1:
        return _one_rotvec_to_matrix(*rotvec.tolist())
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    is_small = angle < _SMALL_ANGLE_RAD
    safe = np.where(is_small, 1.0, angle)
    a = np.where(is_small, 1.0, np.sin(safe) / safe)
    b = np.where(is_small, 0.5, (1.0 - np.cos(safe)) / safe**2)
    K = skew(rotvec)
    return np.eye(3) + a * K + b * (K @ K)


def matrix_to_rotvec(R: FloatArray) -> FloatArray:
    """Logarithm of SO(3): (..., 3, 3) to (..., 3) rad, of length at most pi."""
    if R.ndim == 2:
        return _one_quat_to_rotvec(*_one_matrix_to_quat(R.tolist()))
    quat = matrix_to_quat_xyzw(R)
    quat = np.where(quat[..., 3:] < 0.0, -quat, quat)
    sine = np.linalg.norm(quat[..., :3], axis=-1, keepdims=True)
    is_small = sine < _SMALL_ANGLE_RAD
    angle = 2.0 * np.arctan2(sine, quat[..., 3:])
    return quat[..., :3] * np.where(is_small, 2.0, angle / np.where(is_small, 1.0, sine))


def quat_xyzw_to_matrix(quat_xyzw: FloatArray) -> FloatArray:
    """(..., 4) of any non-zero length to (..., 3, 3).

    Raises:
        ValueError: if a quaternion is zero or not finite.
    """
    quat = np.asarray(quat_xyzw, dtype=np.float64)
    norm = np.linalg.norm(quat, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or np.any(norm < 1e-9):
        raise ValueError(f"quaternion {quat.tolist()} isn't a rotation: zero or not finite")
    q = quat / norm
    v, w = q[..., :3], q[..., 3][..., None, None]
    outer = v[..., :, None] * v[..., None, :]
    dot = np.sum(v * v, axis=-1)[..., None, None]
    return (w * w - dot) * np.eye(3) + 2.0 * outer + 2.0 * w * skew(v)


def matrix_to_quat_xyzw(R: FloatArray) -> FloatArray:
    """(..., 3, 3) to unit (..., 4); the sign is chosen so that the largest component is positive.

    Source: Shepperd, "Quaternion from rotation matrix", J. Guidance and Control 1978 (largest of four pivots).
    """
    R = np.asarray(R, dtype=np.float64)
    if R.ndim == 2:
        return np.array(_one_matrix_to_quat(R.tolist()))
    m00, m11, m22 = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    # Each row is the quaternion times four times one of its components: take the row with the largest.
    rows = np.stack(
        [
            np.stack(
                [
                    1 + m00 - m11 - m22,
                    R[..., 0, 1] + R[..., 1, 0],
                    R[..., 0, 2] + R[..., 2, 0],
                    R[..., 2, 1] - R[..., 1, 2],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    R[..., 0, 1] + R[..., 1, 0],
                    1 - m00 + m11 - m22,
                    R[..., 1, 2] + R[..., 2, 1],
                    R[..., 0, 2] - R[..., 2, 0],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    R[..., 0, 2] + R[..., 2, 0],
                    R[..., 1, 2] + R[..., 2, 1],
                    1 - m00 - m11 + m22,
                    R[..., 1, 0] - R[..., 0, 1],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    R[..., 2, 1] - R[..., 1, 2],
                    R[..., 0, 2] - R[..., 2, 0],
                    R[..., 1, 0] - R[..., 0, 1],
                    1 + m00 + m11 + m22,
                ],
                axis=-1,
            ),
        ],
        axis=-2,
    )
    pivot = np.argmax(np.diagonal(rows, axis1=-2, axis2=-1), axis=-1)
    quat = np.take_along_axis(rows, pivot[..., None, None], axis=-2)[..., 0, :]
    return quat / np.linalg.norm(quat, axis=-1, keepdims=True)


def rpy_to_matrix(rpy: FloatArray) -> FloatArray:
    """(..., 3) roll, pitch, yaw in rad to (..., 3, 3)."""
    rpy = np.asarray(rpy, dtype=np.float64)
    axes = np.eye(3)
    Rx, Ry, Rz = (rotvec_to_matrix(rpy[..., i : i + 1] * axes[i]) for i in range(3))
    return Rz @ Ry @ Rx


def matrix_to_rpy(R: FloatArray) -> FloatArray:
    """(..., 3, 3) to roll, pitch, yaw in rad; at pitch = +-90 degrees yaw is taken as 0."""
    cos_pitch = np.hypot(R[..., 0, 0], R[..., 1, 0])
    is_locked = cos_pitch < 1e-9
    roll = np.where(is_locked, np.arctan2(-R[..., 1, 2], R[..., 1, 1]), np.arctan2(R[..., 2, 1], R[..., 2, 2]))
    pitch = np.arctan2(-R[..., 2, 0], cos_pitch)
    yaw = np.where(is_locked, 0.0, np.arctan2(R[..., 1, 0], R[..., 0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1)


def rot6d_to_matrix(rot6d: FloatArray) -> FloatArray:
    """(..., 6), the first two *columns* of R one after the other, to (..., 3, 3) by Gram-Schmidt.

    Raises:
        ValueError: if the two vectors are zero, parallel or not finite.

    Source: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, eq. 15.
    """
    rot6d = np.asarray(rot6d, dtype=np.float64)
    a, b = rot6d[..., :3], rot6d[..., 3:]
    x = _unit(a, rot6d)
    y = _unit(b - np.sum(x * b, axis=-1, keepdims=True) * x, rot6d)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def matrix_to_rot6d(R: FloatArray) -> FloatArray:
    """(..., 3, 3) to its first two columns, (..., 6)."""
    return np.concatenate([R[..., :, 0], R[..., :, 1]], axis=-1)


def rot6d_rows_to_matrix(rot6d: FloatArray) -> FloatArray:
    """As `rot6d_to_matrix`, from the first two *rows* (UMI, OpenVLA's DROID helper)."""
    return np.swapaxes(rot6d_to_matrix(rot6d), -1, -2)


def matrix_to_rot6d_rows(R: FloatArray) -> FloatArray:
    """(..., 3, 3) to its first two rows, (..., 6)."""
    return matrix_to_rot6d(np.swapaxes(R, -1, -2))


def angle_between(R_a: FloatArray, R_b: FloatArray) -> FloatArray:
    """Geodesic distance of two rotations, rad in [0, pi]."""
    return np.linalg.norm(matrix_to_rotvec(np.swapaxes(R_a, -1, -2) @ R_b), axis=-1)


def slerp(R_a: FloatArray, R_b: FloatArray, fraction: FloatArray | float) -> FloatArray:
    """Rotation on the geodesic from R_a (fraction 0) to R_b (fraction 1)."""
    rotvec = matrix_to_rotvec(np.swapaxes(R_a, -1, -2) @ R_b)
    return R_a @ rotvec_to_matrix(np.asarray(fraction)[..., None] * rotvec)


# A control loop turns single rotations a thousand times a second, where NumPy's calls cost more than the numbers: the
# same formulas once more in plain floats, held to the batched ones by a test.


def _one_rotvec_to_matrix(x: float, y: float, z: float) -> FloatArray:
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < _SMALL_ANGLE_RAD:
        a, b = 1.0, 0.5
    else:
        a, b = math.sin(angle) / angle, (1.0 - math.cos(angle)) / (angle * angle)
    bxy, bxz, byz = b * x * y, b * x * z, b * y * z
    bxx, byy, bzz = b * x * x, b * y * y, b * z * z
    return np.array(
        [
            [1.0 - byy - bzz, bxy - a * z, bxz + a * y],
            [bxy + a * z, 1.0 - bxx - bzz, byz - a * x],
            [bxz - a * y, byz + a * x, 1.0 - bxx - byy],
        ]
    )


def _one_matrix_to_quat(rows: list[list[float]]) -> tuple[float, float, float, float]:
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = rows
    pivots = (1.0 + m00 - m11 - m22, 1.0 - m00 + m11 - m22, 1.0 - m00 - m11 + m22, 1.0 + m00 + m11 + m22)
    largest = max(pivots)
    if largest == pivots[3]:
        q = (m21 - m12, m02 - m20, m10 - m01, largest)
    elif largest == pivots[0]:
        q = (largest, m01 + m10, m02 + m20, m21 - m12)
    elif largest == pivots[1]:
        q = (m01 + m10, largest, m12 + m21, m02 - m20)
    else:
        q = (m02 + m20, m12 + m21, largest, m10 - m01)
    norm = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    return q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm


def _one_quat_to_rotvec(x: float, y: float, z: float, w: float) -> FloatArray:
    if w < 0.0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < _SMALL_ANGLE_RAD else 2.0 * math.atan2(sine, w) / sine
    return np.array([scale * x, scale * y, scale * z])


def _unit(v: FloatArray, given: FloatArray) -> FloatArray:
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or np.any(norm < 1e-9):
        raise ValueError(f"6D rotation {given.tolist()} isn't a rotation: its vectors are zero, parallel or not finite")
    return v / norm
