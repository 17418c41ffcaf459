"""Poses as homogeneous matrices T (..., 4, 4), and the ways of putting a delta on an anchor.

`T_a_b` is the pose of b in a: p_a = T_a_b @ p_b.
"""

from __future__ import annotations

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.types import FloatArray


def make_pose(p: FloatArray, R: FloatArray | None = None) -> FloatArray:
    """(..., 3) metres and (..., 3, 3), the identity if None, to (..., 4, 4)."""
    p = np.asarray(p, dtype=np.float64)
    T = np.zeros((*p.shape[:-1], 4, 4))
    T[..., :3, :3] = np.eye(3) if R is None else R
    T[..., :3, 3] = p
    T[..., 3, 3] = 1.0
    return T


def invert(T: FloatArray) -> FloatArray:
    """Inverse of a pose."""
    R_inv = np.swapaxes(T[..., :3, :3], -1, -2)
    return make_pose(-(R_inv @ T[..., :3, 3:])[..., 0], R_inv)


def interpolate(T_a: FloatArray, T_b: FloatArray, fraction: FloatArray | float) -> FloatArray:
    """Straight line in position and geodesic in rotation from T_a (fraction 0) to T_b (fraction 1)."""
    fraction = np.asarray(fraction, dtype=np.float64)
    p = T_a[..., :3, 3] + fraction[..., None] * (T_b[..., :3, 3] - T_a[..., :3, 3])
    return make_pose(p, rotations.slerp(T_a[..., :3, :3], T_b[..., :3, :3], fraction))


def compose_tcp(T_base_anchor: FloatArray, delta: FloatArray) -> FloatArray:
    """A delta given in the tcp's frame: T = T0 (d, D). Source: docs/design.md, section 4."""
    return T_base_anchor @ delta


def compose_base(T_base_anchor: FloatArray, delta: FloatArray) -> FloatArray:
    """A delta given in base axes: p = p0 + d, R = D R0 (not a left product of SE(3)).

    Source: docs/design.md, section 4.
    """
    p = T_base_anchor[..., :3, 3] + delta[..., :3, 3]
    return make_pose(p, delta[..., :3, :3] @ T_base_anchor[..., :3, :3])


def relative_tcp(T_base_anchor: FloatArray, T_base_target: FloatArray) -> FloatArray:
    """The delta that `compose_tcp` turns back into the target."""
    return invert(T_base_anchor) @ T_base_target


def relative_base(T_base_anchor: FloatArray, T_base_target: FloatArray) -> FloatArray:
    """The delta that `compose_base` turns back into the target."""
    R_anchor_inv = np.swapaxes(T_base_anchor[..., :3, :3], -1, -2)
    return make_pose(
        T_base_target[..., :3, 3] - T_base_anchor[..., :3, 3],
        T_base_target[..., :3, :3] @ R_anchor_inv,
    )


def pose_error(T_base_from: FloatArray, T_base_to: FloatArray) -> FloatArray:
    """(..., 6) displacement in base axes, m then rad, that leads from one pose to the other in unit time."""
    delta = relative_base(T_base_from, T_base_to)
    return np.concatenate([delta[..., :3, 3], rotations.matrix_to_rotvec(delta[..., :3, :3])], axis=-1)


def is_pose(T: FloatArray, tolerance: float = 1e-6) -> bool:
    """Whether every matrix is finite and a rigid motion."""
    T = np.asarray(T)
    if T.shape[-2:] != (4, 4) or not np.all(np.isfinite(T)):
        return False
    R = T[..., :3, :3]
    return bool(
        np.allclose(np.swapaxes(R, -1, -2) @ R, np.eye(3), atol=tolerance)
        and np.all(np.linalg.det(R) > 0.0)
        and np.allclose(T[..., 3, :], [0.0, 0.0, 0.0, 1.0], atol=tolerance)
    )
