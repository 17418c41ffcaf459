"""How a joint that has lost its wanted motion comes back to it: where that motion is going, and how hard to try."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.control.stopping import GuardLimits, stopping_reach
from vla_ros.types import FloatArray

# Catching up at the very limits would be the roughest part of the motion: the first of these shares that does is taken.
_SHARES = np.array([[0.2], [0.35], [0.6], [1.0]])
_SLACK = 1e-9
# From rest to rest, a gap is closed in about this time or at the limits.
_SOON_S = 0.4
# Besides as much as the gap itself, what a joint may go the other way before it turns round.
_DETOUR_RAD = 1e-4


def likely_motion(wanted: FloatArray, limits: GuardLimits, dt_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Velocity, acceleration and jerk with which the wanted motion will go on.

    The cubic through its last four points says so where it keeps the limits. After a jump it doesn't for three
    ticks, and then the middle one of the last three velocities is taken: chasing a jump's derivatives would turn
    a hundredth of a millimetre into centimetres.
    """
    velocity, acceleration, jerk = end_of_cubic(wanted, dt_s)
    keeps = (
        (np.abs(jerk) < limits.jerk)
        & (np.maximum(np.abs(acceleration), np.abs(acceleration - jerk * dt_s)) < limits.acceleration)
        & (np.abs(velocity) < limits.velocity)
    )
    steps = np.diff(wanted, axis=0) / dt_s
    middle = steps.sum(axis=0) - steps.max(axis=0) - steps.min(axis=0)
    steady = np.where(np.abs(middle) < limits.velocity, middle, 0.0)
    return np.where(keeps, velocity, steady), np.where(keeps, acceleration, 0.0), np.where(keeps, jerk, 0.0)


def gentlest_share(gap: FloatArray, left: GuardLimits) -> FloatArray:
    """Which part of the limits closes each gap without swinging past its end or turning back before it, (n,).

    It depends on the gap's state alone and stays once taken, since such a way goes on being one. (Limits that grow and
    shrink with the acceleration would promise a brake that isn't there any more when it is due.)

    Args:
        gap: (3, n) position, velocity and acceleration, to be brought to zero.
        left: what may be taken for it.
    """
    side = np.where(gap[0] > 0.0, -1.0, 1.0)
    velocity, acceleration = side * gap[1], side * gap[2]
    room = np.abs(gap[0]) * (1.0 + _SLACK) + _SLACK
    part = replace(left, acceleration=_SHARES * left.acceleration, jerk=_SHARES * left.jerk)
    ways = np.stack([velocity, -velocity])[:, None], np.stack([acceleration, -acceleration])[:, None]
    onwards, back = stopping_reach(*ways, part)
    # Speed that goes while the acceleration is taken back: with less than that, the joint turns round.
    with np.errstate(divide="ignore", invalid="ignore"):
        swing = 0.5 * acceleration**2 / part.jerk
    goes_on = (acceleration >= 0.0) | (velocity <= 0.0) | (velocity * (1.0 + _SLACK) + _SLACK >= swing)
    is_soon = np.abs(gap[0]) <= 0.25 * part.acceleration * _SOON_S**2
    does = (onwards <= room) & (back <= room + _DETOUR_RAD) & goes_on & is_soon
    does[-1] = True
    return np.asarray(_SHARES[np.argmax(does, axis=0), 0])


def end_of_cubic(points: FloatArray, dt_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Velocity, acceleration and jerk at the last of four points (4, n), dt_s apart, of the cubic through them."""
    jerk = (points[3] - 3.0 * points[2] + 3.0 * points[1] - points[0]) / dt_s**3
    acceleration = (points[3] - 2.0 * points[2] + points[1]) / dt_s**2 + jerk * dt_s
    velocity = (points[3] - points[2]) / dt_s + 0.5 * acceleration * dt_s - jerk * dt_s * dt_s / 6.0
    return velocity, acceleration, jerk
