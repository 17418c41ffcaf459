"""Weighted means of rotations and poses on the manifold, for NumPy arrays and torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_ros.geometry.arrays import Array, as_constant, as_like, with_namespace
from vla_ros.geometry.lie import left_jacobian_inverse
from vla_ros.geometry.rotations import matrix_to_quat_xyzw, matrix_to_rotvec, quat_xyzw_to_matrix, rotvec_to_matrix
from vla_ros.geometry.se3 import make_pose

# From the chordal mean each step squares what is left: three are exact for rotations within 90 degrees of their mean.
_NEWTON_STEPS = 3


def mean_rotation(R: Array, weights: Array | None = None) -> Array:
    """The rotation from which the others' rotation vectors, weighted, sum to zero; of two, their slerp.

    Args:
        R: (..., n, 3, 3), each within 90 degrees of the mean; farther apart there may be several means, and the result
            need be none.
        weights: (n,) or (..., n), not negative, not all zero; equal if None.

    Returns:
        (..., 3, 3).

    Raises:
        ValueError: for weights that aren't such, or no rotation at all.

    Source: Newton's method for Karcher's mean (Krakowski, Hueper and Manton, "On the computation of the Karcher mean on
    spheres and special orthogonal groups", 2007), from the mean of Markley et al., "Averaging Quaternions", J. Guidance
    2007, eq. 12 and 13.
    """
    xp, R = with_namespace(R)
    shares = _shares(xp, R, 3, weights)
    mean = _chordal_mean(xp, as_constant(R), as_constant(shares))
    for _ in range(_NEWTON_STEPS - 1):
        mean = _newton_step(xp, mean, as_constant(R), as_constant(shares))
    # A Newton step from the mean itself has the mean's derivatives, so those of the way there aren't needed.
    return _newton_step(xp, mean, R, shares)


def mean_pose(T: Array, weights: Array | None = None) -> Array:
    """(..., n, 4, 4) to (..., 4, 4): the weighted mean of the positions with `mean_rotation` of the rotations."""
    xp, T = with_namespace(T)
    shares = _shares(xp, T, 4, weights)
    p = xp.sum(shares[..., None] * T[..., :3, 3], axis=-2)
    return make_pose(p, mean_rotation(T[..., :3, :3], shares))


def _shares(xp: Any, values: Any, size: int, weights: Any) -> Any:
    """(..., n) weights of sum 1. Those in a tensor aren't looked at, as everywhere in geometry."""
    if values.ndim < 3 or tuple(values.shape[-2:]) != (size, size) or values.shape[-3] == 0:
        raise ValueError(f"a mean is of at least one: needs (..., n, {size}, {size}), got {tuple(values.shape)}")
    count = values.shape[-3]
    if weights is None:
        return as_like(np.full(count, 1.0 / count), values)
    weights = as_like(weights, values)
    if weights.shape[-1] != count:
        raise ValueError(f"{weights.shape[-1]} weights for {count} values")
    total = xp.sum(weights, axis=-1, keepdims=True)
    if xp is np and not ((weights >= 0.0).all() and (total > 0.0).all() and np.isfinite(total).all()):
        raise ValueError(f"weights {weights.tolist()} must be finite, at least 0 and not all 0")
    return weights / total


def _chordal_mean(xp: Any, R: Any, shares: Any) -> Any:
    quats = matrix_to_quat_xyzw(R)
    scatter = (shares[..., None] * quats).swapaxes(-1, -2) @ quats
    return quat_xyzw_to_matrix(xp.linalg.eigh(scatter)[1][..., -1])


def _newton_step(xp: Any, mean: Any, R: Any, shares: Any) -> Any:
    rotvecs = matrix_to_rotvec(mean[..., None, :, :].swapaxes(-1, -2) @ R)
    residual = xp.sum(shares[..., None] * rotvecs, axis=-2)
    slope = xp.sum(shares[..., None, None] * left_jacobian_inverse(rotvecs), axis=-3)
    return mean @ rotvec_to_matrix(xp.linalg.solve(slope, residual[..., None])[..., 0])
