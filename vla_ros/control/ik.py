"""Differential inverse kinematics: a wanted tool twist to joint velocities."""

from __future__ import annotations

import numpy as np

from vla_ros.types import FloatArray


def damped_velocities(
    J: FloatArray, twist: FloatArray, posture: FloatArray, damping: float, sigma_threshold: float
) -> tuple[FloatArray, float]:
    """Joint velocities by least squares, damped in the weak directions only.

    Every singular direction keeps its exact inverse until its singular value falls below the threshold; from there the
    damping grows smoothly to its full value, so speed along a lost direction fades while the others stay exact.

    Args:
        J: (6, n) Jacobian, rows linear then angular.
        twist: (6,) wanted velocity in the Jacobian's axes.
        posture: (n,) wanted joint velocities, followed in the null space only.
        damping: damping at a singular value of 0.
        sigma_threshold: singular value at which damping begins.

    Returns:
        (n,) joint velocities, rad/s, and the smallest singular value.

    Source: Nakamura and Hanafusa, J. Dyn. Sys. Meas. Control 1986 (damped least squares); Maciejewski and Klein,
    J. Robotic Systems 1988 (numerical filtering: damping of single directions).
    """
    left, sigma, right = np.linalg.svd(J, full_matrices=False)
    weakness = np.clip(1.0 - sigma / sigma_threshold, 0.0, 1.0)
    damping2 = (weakness * damping) ** 2
    inverse = sigma / (sigma**2 + damping2 + 1e-12)
    task = right.T @ (inverse * (left.T @ twist))
    null = posture - right.T @ (right @ posture)
    return task + null, float(sigma[-1])
