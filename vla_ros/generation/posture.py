"""Joint positions at which the tool has a pose."""

from __future__ import annotations

import numpy as np

from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

_STEPS, _DAMPING, _MOST_RAD = 60, 1e-3, 0.3
_NEAR_M_RAD = 1e-4


def find_posture(model: RobotModel, T_base_tcp: FloatArray, start: FloatArray) -> FloatArray | None:
    """(n,) rad within the joints' limits, from (n,) near by; None where damped least squares find none.

    Source: Wampler, "Manipulator Inverse Kinematic Solutions Based on Vector Formulations and Damped Least-Squares
    Methods", IEEE Trans. SMC 1986.
    """
    q = np.array(start)
    for _ in range(_STEPS):
        error, J = model.pose_error_and_jacobian(q, T_base_tcp)
        if float(np.abs(error).max()) < _NEAR_M_RAD:
            return q
        step = J.T @ np.linalg.solve(J @ J.T + _DAMPING**2 * np.eye(6), error)
        q = q + step * min(1.0, _MOST_RAD / max(1e-12, float(np.abs(step).max())))
        q = np.clip(q, model.lower, model.upper)
    return None
