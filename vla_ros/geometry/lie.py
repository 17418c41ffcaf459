"""Derivatives of the exponential map of SO(3), and the exponential map of SE(3).

A twist (..., 6) has its linear part first, m, then its angular part, rad.

Source: Sola, Deray and Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, appendices B and D.
"""

from __future__ import annotations

from vla_ros.geometry.arrays import Array, with_namespace
from vla_ros.geometry.rotations import (
    COSC_SERIES,
    identity_plus,
    matrix_to_rotvec,
    power_series,
    rotvec_to_matrix,
    split_small,
)
from vla_ros.geometry.se3 import make_pose

# (x - sin x) / x^3 and 1 / x^2 - cot(x / 2) / (2 x) of x^2.
_CUBIC_SERIES = (1.0 / 6.0, -1.0 / 120.0, 1.0 / 5040.0, -1.0 / 362880.0)
_COTANGENT_SERIES = (1.0 / 12.0, 1.0 / 720.0, 1.0 / 30240.0, 1.0 / 1209600.0)


def left_jacobian(rotvec: Array) -> Array:
    """(..., 3) rad to the (..., 3, 3) J with exp(rotvec + d) = exp(J d) exp(rotvec) for small d. Source: eq. 145."""
    xp, rotvec = with_namespace(rotvec)
    is_small, t, angle = split_small(xp, xp.sum(rotvec * rotvec, axis=-1))
    b = xp.where(is_small, power_series(COSC_SERIES, t), 2.0 * (xp.sin(0.5 * angle) / angle) ** 2)
    c = xp.where(is_small, power_series(_CUBIC_SERIES, t), (angle - xp.sin(angle)) / angle**3)
    return identity_plus(xp, rotvec, b, c)


def left_jacobian_inverse(rotvec: Array) -> Array:
    """Inverse of `left_jacobian`, for rotation vectors shorter than a whole turn. Source: eq. 146."""
    xp, rotvec = with_namespace(rotvec)
    is_small, t, angle = split_small(xp, xp.sum(rotvec * rotvec, axis=-1))
    closed = (1.0 - 0.5 * angle / xp.tan(0.5 * angle)) / angle**2
    d = xp.where(is_small, power_series(_COTANGENT_SERIES, t), closed)
    return identity_plus(xp, rotvec, -0.5, d)


def exp_se3(twist: Array) -> Array:
    """(..., 6) to the pose (..., 4, 4) that the twist leads to from the origin in unit time. Source: eq. 172."""
    p = left_jacobian(twist[..., 3:]) @ twist[..., :3, None]
    return make_pose(p[..., 0], rotvec_to_matrix(twist[..., 3:]))


def log_se3(T: Array) -> Array:
    """The twist (..., 6), turning by at most pi, that leads from the origin to T in unit time. Source: eq. 173."""
    xp, T = with_namespace(T)
    rotvec = matrix_to_rotvec(T[..., :3, :3])
    linear = left_jacobian_inverse(rotvec) @ T[..., :3, 3:]
    return xp.concatenate([linear[..., 0], rotvec], axis=-1)
