"""The way to rest, in closed form: what the guard's `brake` does tick by tick, all of it at once."""

from __future__ import annotations

import numpy as np

from vla_ros.control.stopping import GuardLimits
from vla_ros.types import FloatArray


def stop_positions(
    positions: FloatArray, velocities: FloatArray, accelerations: FloatArray, limits: GuardLimits, dt_s: float
) -> FloatArray:
    """Positions of the coming ticks of a stop in least time, joint by joint, up to and with the first that rests.

    Each joint takes its acceleration to the braking one, holds it, and takes it back to zero; a joint that brakes
    harder than it needs does so the other way round.

    Args:
        positions: (n,) rad, of the last tick.
        velocities: (n,) rad/s.
        accelerations: (n,) rad/s^2.
        limits: of acceleration and jerk; a joint with a limit of zero stands still.
        dt_s: duration of a tick.

    Returns:
        (ticks, n) rad, at least one row.

    Source: Biagiotti and Melchiorri, "Trajectory Planning for Automatic Machines and Robots", 2008, section 3.4.
    """
    is_free = (limits.acceleration > 0.0) & (limits.jerk > 0.0)
    jerk = np.where(is_free, limits.jerk, 1.0)
    v, a = np.where(is_free, velocities, 0.0), np.where(is_free, accelerations, 0.0)
    # Which way the joint would still go if its acceleration were taken back to zero first; it is braked against that.
    way = np.where(v + 0.5 * a * np.abs(a) / jerk >= 0.0, 1.0, -1.0)
    v, a = way * v, way * a
    peak = np.minimum(np.sqrt(np.maximum(jerk * v + 0.5 * a * a, 0.0)), np.where(is_free, limits.acceleration, 1.0))
    # Rounding may leave a joint that is only taking its acceleration back a hair short of that.
    first_s = np.maximum(a + peak, 0.0) / jerk
    last_s = peak / jerk
    left = v + 0.5 * first_s * (a - peak) - 0.5 * peak * last_s
    held_s = np.maximum(left, 0.0) / np.where(peak > 0.0, peak, 1.0)

    ticks = max(1, int(np.ceil(np.max(first_s + held_s + last_s) / dt_s)))
    t = dt_s * np.arange(1, ticks + 1)[:, None]
    t1 = np.minimum(t, first_s)
    t2 = np.clip(t - first_s, 0.0, held_s)
    t3 = np.clip(t - first_s - held_s, 0.0, last_s)
    v1 = v + t1 * (a - 0.5 * jerk * t1)
    v2 = v1 - peak * t2
    moved = (
        t1 * (v + t1 * (0.5 * a - jerk * t1 / 6.0))
        + t2 * (v1 - 0.5 * peak * t2)
        + t3 * (v2 - t3 * (0.5 * peak - jerk * t3 / 6.0))
    )
    return np.asarray(positions + way * moved)
