"""Poses as homogeneous matrices T (..., 4, 4), and the ways of putting a delta on an anchor; NumPy arrays and tensors.

`T_a_b` is the pose of b in a: p_a = T_a_b @ p_b.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.geometry.arrays import Array, as_like, with_namespace
from vla_ros.types import FloatArray


def make_pose(p: Array, R: Array | None = None) -> Array:
    """(..., 3) metres and (..., 3, 3), the identity if None, to (..., 4, 4)."""
    if not isinstance(p, np.ndarray):
        xp, p = with_namespace(p)
        if xp is not np:
            return _make_pose_of_tensors(xp, p, R)
    T: Any = np.zeros((*p.shape[:-1], 4, 4))
    T[..., :3, :3] = np.eye(3) if R is None else R
    T[..., :3, 3] = p
    T[..., 3, 3] = 1.0
    return T


def invert(T: Array) -> Array:
    """Inverse of a pose."""
    R_inv = T[..., :3, :3].swapaxes(-1, -2)
    return make_pose(-(R_inv @ T[..., :3, 3:])[..., 0], R_inv)


def interpolate(T_a: Array, T_b: Array, fraction: Array | float) -> Array:
    """Straight line in position and geodesic in rotation from T_a (fraction 0) to T_b (fraction 1)."""
    scale = fraction if isinstance(fraction, int | float) else fraction[..., None]
    p = T_a[..., :3, 3] + scale * (T_b[..., :3, 3] - T_a[..., :3, 3])
    return make_pose(p, rotations.slerp(T_a[..., :3, :3], T_b[..., :3, :3], fraction))


def compose_tcp(T_base_anchor: Array, delta: Array) -> Array:
    """A delta given in the tcp's frame: T = T0 (d, D). Source: docs/design.md, section 4."""
    return T_base_anchor @ delta


def compose_base(T_base_anchor: Array, delta: Array) -> Array:
    """A delta given in base axes: p = p0 + d, R = D R0 (not a left product of SE(3)).

    Source: docs/design.md, section 4.
    """
    p = T_base_anchor[..., :3, 3] + delta[..., :3, 3]
    return make_pose(p, delta[..., :3, :3] @ T_base_anchor[..., :3, :3])


def compose_base_euler(T_base_anchor: Array, delta: Array) -> Array:
    """A delta (..., 6), d in base axes, m, then rpy, rad: p = p0 + d and Euler angles added one by one, as Bridge did.

    Source: docs/design.md, section 4.
    """
    rpy = rotations.matrix_to_rpy(T_base_anchor[..., :3, :3]) + delta[..., 3:]
    return make_pose(T_base_anchor[..., :3, 3] + delta[..., :3], rotations.rpy_to_matrix(rpy))


def relative_tcp(T_base_anchor: Array, T_base_target: Array) -> Array:
    """The delta that `compose_tcp` turns back into the target."""
    return invert(T_base_anchor) @ T_base_target


def relative_base(T_base_anchor: Array, T_base_target: Array) -> Array:
    """The delta that `compose_base` turns back into the target."""
    R_anchor_inv = T_base_anchor[..., :3, :3].swapaxes(-1, -2)
    p = T_base_target[..., :3, 3] - T_base_anchor[..., :3, 3]
    return make_pose(p, T_base_target[..., :3, :3] @ R_anchor_inv)


def relative_base_euler(T_base_anchor: Array, T_base_target: Array) -> Array:
    """The delta (..., 6) that `compose_base_euler` turns back into the target; its angles are in [-pi, pi]."""
    xp, T_base_anchor = with_namespace(T_base_anchor)
    rpy = rotations.matrix_to_rpy(T_base_target[..., :3, :3]) - rotations.matrix_to_rpy(T_base_anchor[..., :3, :3])
    p = T_base_target[..., :3, 3] - T_base_anchor[..., :3, 3]
    return xp.concatenate([p, xp.arctan2(xp.sin(rpy), xp.cos(rpy))], axis=-1)


def pose_error(T_base_from: Array, T_base_to: Array) -> Array:
    """(..., 6) displacement in base axes, m then rad, that leads from one pose to the other in unit time."""
    xp, T_base_from = with_namespace(T_base_from)
    R = T_base_to[..., :3, :3] @ T_base_from[..., :3, :3].swapaxes(-1, -2)
    p = T_base_to[..., :3, 3] - T_base_from[..., :3, 3]
    return xp.concatenate([p, rotations.matrix_to_rotvec(R)], axis=-1)


def is_pose(T: FloatArray, tolerance: float = 1e-6) -> bool:
    """Whether every matrix is finite and a rigid motion."""
    T = np.asarray(T)
    if T.shape[-2:] != (4, 4):
        return False
    if T.ndim <= 3 and T.size <= 16 * rotations.FEW:
        return all(_is_one_pose(rows, tolerance) for rows in T.reshape(-1, 4, 4).tolist())
    if not np.isfinite(T).all():
        return False
    R = T[..., :3, :3]
    return bool(
        (np.abs(R.swapaxes(-1, -2) @ R - np.eye(3)) <= tolerance).all()
        and (np.linalg.det(R) > 0.0).all()
        and (np.abs(T[..., 3, :] - [0.0, 0.0, 0.0, 1.0]) <= tolerance).all()
    )


def _is_one_pose(rows: list[list[float]], tolerance: float) -> bool:
    """The same of one matrix, in plain floats."""
    (a, b, c, x), (d, e, f, y), (g, h, i, z), bottom = rows
    inner = (
        *(a * a + d * d + g * g - 1.0, b * b + e * e + h * h - 1.0, c * c + f * f + i * i - 1.0),
        *(a * b + d * e + g * h, a * c + d * f + g * i, b * c + e * f + h * i, *bottom[:3], bottom[3] - 1.0),
    )
    # What isn't a number compares as false.
    is_rigid = all(abs(value) <= tolerance for value in inner)
    return is_rigid and a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g) > 0.0 and isfinite(x + y + z)


def _make_pose_of_tensors(xp: Any, p: Any, R: Any) -> Any:
    # Nothing is written into, for the sake of torch.func and torch.compile.
    R = as_like(np.eye(3), p) if R is None else R
    top = xp.concatenate([R.expand(*p.shape[:-1], 3, 3), p[..., None]], axis=-1)
    bottom = as_like([[0.0, 0.0, 0.0, 1.0]], p).expand(*p.shape[:-1], 1, 4)
    return xp.concatenate([top, bottom], axis=-2)
