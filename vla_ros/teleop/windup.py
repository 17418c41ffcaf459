"""The target stays near the arm: who pushes on against a wall, or an arm that is blocked, winds nothing up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.geometry import rotations, se3
from vla_ros.teleop.motion import Motion
from vla_ros.types import FloatArray

# Part of the limit from which on the target slows down on its way from the arm.
_FREE = 0.6


def slowed(
    velocity: FloatArray, T_base_target: FloatArray, T_base_measured: FloatArray, limits: tuple[float, float]
) -> FloatArray:
    """(6,) velocity without what would lead the target away from the arm at the limit, and less of that near it.

    Args:
        velocity: (6,) wanted, in base axes.
        T_base_target: (4, 4).
        T_base_measured: (4, 4).
        limits: m and rad.
    """
    gap = se3.pose_error(T_base_measured, T_base_target)
    out = velocity.copy()
    for rows, limit in zip((slice(0, 3), slice(3, 6)), limits, strict=True):
        size = float(np.linalg.norm(gap[rows]))
        if size <= _FREE * limit:
            continue
        away = gap[rows] / size
        speed = float(away @ velocity[rows])
        if speed > 0.0:
            left = max(0.0, (limit - size) / (limit - _FREE * limit))
            out[rows] -= (1.0 - left) * speed * away
    return out


def near(motion: Motion, T_base_measured: FloatArray, limits: tuple[float, float]) -> Motion:
    """The motion, or the nearest within the limits of the measured pose, without its velocity away from there."""
    gap = se3.pose_error(T_base_measured, motion.T_base_tcp)
    T, velocity, acceleration = motion.T_base_tcp.copy(), motion.velocity.copy(), motion.acceleration.copy()
    is_changed = False
    for rows, limit in zip((slice(0, 3), slice(3, 6)), limits, strict=True):
        size = float(np.linalg.norm(gap[rows]))
        if size <= limit:
            continue
        is_changed = True
        away = gap[rows] / size
        for rate in (velocity, acceleration):
            rate[rows] -= max(0.0, float(away @ rate[rows])) * away
        if rows.start == 0:
            T[:3, 3] = T_base_measured[:3, 3] + limit * away
        else:
            T[:3, :3] = rotations.rotvec_to_matrix(np.asarray(limit * away)) @ T_base_measured[:3, :3]
    return replace(motion, T_base_tcp=T, velocity=velocity, acceleration=acceleration) if is_changed else motion
