"""Other ways of inverse kinematics, re-stated from their public descriptions, each a `velocities` of one signature."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vla_ros.geometry import se3
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray


class Peer(Protocol):
    """A solver. `name` is for tables."""

    name: str

    def velocities(self, q: FloatArray, T_base_tcp: FloatArray, dt_s: float) -> FloatArray:
        """(n,) rad/s that bring the tool from q (n,) rad towards a pose (4, 4) in a tick."""


class ConstantDamping:
    """Damped least squares with one damping everywhere.

    Args:
        model: the robot.
        limit: (n,) rad/s; a faster motion is scaled as a whole.
        damping: m per rad.

    Source: Wampler, IEEE Trans. Systems, Man and Cybernetics 1986; Nakamura and Hanafusa 1986.
    """

    def __init__(self, model: RobotModel, limit: FloatArray, damping: float) -> None:
        self.name = f"damping_{damping:g}"
        self._model, self._limit, self._damping = model, limit, damping

    def velocities(self, q: FloatArray, T_base_tcp: FloatArray, dt_s: float) -> FloatArray:
        T, J = self._model.tcp_pose_and_jacobian(q)
        twist = se3.pose_error(T, T_base_tcp) / dt_s
        return within(J.T @ np.linalg.solve(J @ J.T + self._damping**2 * np.eye(6), twist), self._limit)


class AdaptiveDamping:
    """Damping of the weak singular directions only, growing from a threshold on.

    Args:
        model: the robot.
        limit: (n,) rad/s; a faster motion is scaled as a whole.
        damping: at a singular value of 0.
        threshold: singular value at which it begins.

    Source: Maciejewski and Klein, J. Robotic Systems 1988 (numerical filtering).
    """

    def __init__(self, model: RobotModel, limit: FloatArray, damping: float = 0.05, threshold: float = 0.08) -> None:
        self.name = "adaptive_damping"
        self._model, self._limit, self._damping, self._threshold = model, limit, damping, threshold

    def velocities(self, q: FloatArray, T_base_tcp: FloatArray, dt_s: float) -> FloatArray:
        T, J = self._model.tcp_pose_and_jacobian(q)
        left, sigma, right = np.linalg.svd(J, full_matrices=False)
        damping = self._damping * np.clip(1.0 - sigma / self._threshold, 0.0, 1.0)
        inverse = sigma / (sigma**2 + damping**2 + 1e-12)
        return within(right.T @ (inverse * (left.T @ (se3.pose_error(T, T_base_tcp) / dt_s))), self._limit)


class ServoHalting:
    """MoveIt Servo's rule: by the condition number, the whole twist is slowed from 17 on and halted from 30 on.

    Args:
        model: the robot.
        limit: (n,) rad/s; a faster motion is scaled as a whole.

    Source: moveit_servo, parameters `lower_singularity_threshold` and `hard_stop_singularity_threshold`.
    """

    def __init__(self, model: RobotModel, limit: FloatArray, slow_from: float = 17.0, halt_from: float = 30.0) -> None:
        self.name = "servo_halting"
        self._model, self._limit, self._slow_from, self._halt_from = model, limit, slow_from, halt_from

    def velocities(self, q: FloatArray, T_base_tcp: FloatArray, dt_s: float) -> FloatArray:
        T, J = self._model.tcp_pose_and_jacobian(q)
        left, sigma, right = np.linalg.svd(J, full_matrices=False)
        condition = sigma[0] / max(sigma[-1], 1e-12)
        scale = min(1.0, max(0.0, (self._halt_from - condition) / (self._halt_from - self._slow_from)))
        if scale == 0.0:
            return np.zeros_like(q)
        twist = scale * se3.pose_error(T, T_base_tcp) / dt_s
        return within(right.T @ ((left.T @ twist) / sigma), self._limit)


def within(velocities: FloatArray, limit: FloatArray) -> FloatArray:
    """The same direction, no faster than the limits of the joints."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nanmax(np.abs(velocities) / limit)
    return velocities / ratio if ratio > 1.0 else velocities
