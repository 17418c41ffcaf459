"""Keeps the arm's links apart: half-spaces for the solver, and a last look at where a command could still stop."""

from __future__ import annotations

import math

import numpy as np

from vla_ros.control.braking import stop_positions
from vla_ros.control.guard import JointMotion
from vla_ros.control.ik import MAX_ROWS
from vla_ros.control.stopping import GuardLimits
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray

# Links that come this near to their margin are slowed down; faster ones are caught by the look at the stop.
_INFLUENCE_M = 0.03
# Share of the joints' acceleration with which links slow down for each other.
_BRAKING_SHARE = 0.4
_DELAY_S = 0.05
_ROUNDING_M = 1e-9
# Parts of a stop's time at which it is looked at: links may pass each other on the way to where it ends.
_LOOKS = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])

# Rows (k, n), the least rows @ velocities, and the pairs of links that they are of.
Rows = tuple[FloatArray, FloatArray, tuple[tuple[str, str], ...]]


class Clearance:
    """Distances between links, computed no oftener than the arm's motion asks for.

    Args:
        collision: the links.
        limits: the guard's.
        margin_m: distance that is kept.
        dt_s: duration of a tick.
    """

    def __init__(self, collision: SelfCollision, limits: GuardLimits, margin_m: float, dt_s: float) -> None:
        self.margin_m = margin_m
        self._collision, self._limits, self._dt_s = collision, limits, dt_s
        a, j = np.maximum(limits.acceleration, 1e-9), np.maximum(limits.jerk, 1e-9)
        # What a joint moves links in a tick and, at most, in a stop from the speed that it has once its acceleration is
        # taken back (`stopping_reach`).
        factors = np.stack((collision.reach_m, 0.5 / a, 1.5 * a / j, 0.5 / j), axis=1).tolist()
        self._rows = [(i, *row) for i, row in enumerate(factors) if row[0] > 0.0]
        self._braking = _BRAKING_SHARE * limits.acceleration
        self._near_m = margin_m + _INFLUENCE_M

    def at(self, q: FloatArray) -> float:
        """m, smallest distance between links at q (n,) rad."""
        return self._collision.distance(q)

    def check(self, clearance_m: float, motion: JointMotion) -> tuple[float, bool]:
        """After a tick: what distance links have at least, and whether the arm can still stop with them apart.

        Links that are too near already are let go, as long as they don't come nearer.

        Args:
            clearance_m: that they had at least before the tick.
            motion: at the end of the tick.
        """
        (_, _, before, now), velocities, accelerations, _ = motion
        moved = stop = 0.0
        for i, reach, k1, k2, k3 in self._rows:
            size = abs(accelerations[i])
            speed = abs(velocities[i]) + k3 * size * size
            moved += reach * abs(now[i] - before[i])
            stop += reach * speed * (k2 + k1 * speed)
        floor_m = min(self.margin_m, clearance_m) - _ROUNDING_M
        clearance_m -= moved
        if clearance_m >= self._near_m and clearance_m - stop >= self.margin_m:
            return clearance_m, True
        clearance_m = self._collision.distance(np.array(now))
        if clearance_m - stop >= self.margin_m:
            return clearance_m, True
        # On the way between two postures no distance is less than half of what theirs together leave over the way.
        end = [*now]
        for i, _, k1, k2, k3 in self._rows:
            v, a = velocities[i], accelerations[i]
            speed = abs(v) + k3 * a * a
            end[i] += math.copysign(speed * (k2 + k1 * speed), v + k3 * a * abs(a))
        if clearance_m + self._collision.distance(np.array(end)) - stop >= 2.0 * self.margin_m:
            return clearance_m, True
        return clearance_m, min(clearance_m, *map(self._collision.distance, self._stop(motion))) >= floor_m

    def permits(self, clearance_m: float, q: FloatArray, way: FloatArray) -> bool:
        """Whether what the joints go in a tick, (n,) rad, keeps the half-spaces at q (n,) rad."""
        if clearance_m >= self._near_m:
            return True
        rows, least, _ = self.half_spaces(q)
        return bool((rows @ way >= self._dt_s * least).all())

    def half_spaces(self, q: FloatArray) -> Rows:
        """Of the nearest pairs of links: rows (k, n), and the least rows @ velocities, m/s, that stop them apart."""
        near = self._collision.nearest(q, self.margin_m + _INFLUENCE_M)
        chosen = np.argsort(near.distances)[:MAX_ROWS]
        rows, room = near.gradients[chosen], near.distances[chosen] - self.margin_m
        b = np.abs(rows) @ self._braking
        stopping = b * (np.sqrt(_DELAY_S**2 + 2.0 * np.maximum(room, 0.0) / np.maximum(b, 1e-9)) - _DELAY_S)
        # Links that are too near may not come nearer, and are let go apart by themselves.
        return rows, -stopping, tuple(near.pairs[i] for i in chosen)

    def is_near(self, clearance_m: float) -> bool:
        """Whether links are so near that the solver has to know of it."""
        return clearance_m < self._near_m

    def _stop(self, motion: JointMotion) -> FloatArray:
        """(k, n) rad, where the joints are at some ticks of the stop that the guard would make of it now."""
        v, a = np.array(motion.velocities), np.array(motion.accelerations)
        path = stop_positions(motion.positions, v, a, self._limits, self._dt_s)
        return path[np.unique((_LOOKS * (len(path) - 1)).round().astype(int))]
