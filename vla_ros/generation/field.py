"""Velocities that lead the tool to a place without touching what lies on the way.

They depend on where the tool is and on nothing else, so that what is labelled can be told from what is seen: far from
the place the tool stays at hovering height, near it a funnel lets it down, and where it is too low it rises first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla_ros.types import FloatArray

_GAIN_PER_S = 4.0  # Of the way that is left: how places are come to rest at.
_BRAKE_M_S2 = 0.6
_RISE_M_S = 0.2
# Too low by less than the first, the tool goes on sideways as if it weren't; by more than the second, not at all.
_SHORT_M, _MUCH_TOO_LOW_M = 0.01, 0.03
# Downwards the tool is as fast as this near the place, and faster by so much a metre above it.
_NEAR_M_S, _FASTER_PER_S = 0.06, 1.6


@dataclass(frozen=True)
class Funnel:
    """How a place is come down to.

    Attributes:
        hover_z_m: height, in base, at which the tool travels.
        inner_m: nearer than this, sideways, it may be all the way down.
        outer_m: farther than this it may not be lower than hovering.
        speed_m_s: peak, sideways.
    """

    hover_z_m: float
    inner_m: float = 0.004
    outer_m: float = 0.03
    speed_m_s: float = 0.25

    def velocity(self, p_base: FloatArray, p_goal: FloatArray, off_m: float = 0.0) -> FloatArray:
        """(3,) m/s, wanted at a position.

        Args:
            p_base: (3,) of the tool.
            p_goal: (3,) of the place.
            off_m: what else isn't ready (yaw, fingers), told as a distance: it keeps the tool up, too.
        """
        way = p_goal - p_base
        distance_m = math.hypot(way[0], way[1])
        lowest_m = self.lowest_z_m(float(p_goal[2]), distance_m + off_m)
        too_low_m = lowest_m - p_base[2]
        share = min(1.0, max(0.0, (_MUCH_TOO_LOW_M - too_low_m) / (_MUCH_TOO_LOW_M - _SHORT_M)))
        sideways = share * speed(distance_m, self.speed_m_s) / max(distance_m, 1e-9)
        down_m_s = min(_RISE_M_S, _NEAR_M_S + _FASTER_PER_S * max(0.0, float(p_base[2] - p_goal[2]) - 0.02))
        vertical = speed(too_low_m, _RISE_M_S) if too_low_m > 0.0 else -speed(-too_low_m, down_m_s)
        return np.array([sideways * way[0], sideways * way[1], vertical])

    def lowest_z_m(self, goal_z_m: float, distance_m: float) -> float:
        """How low the tool may be at a distance, sideways, from the place."""
        x = min(1.0, max(0.0, (distance_m - self.inner_m) / (self.outer_m - self.inner_m)))
        return goal_z_m + max(0.0, self.hover_z_m - goal_z_m) * x * x * (3.0 - 2.0 * x)


def speed(distance_m: float, most_m_s: float) -> float:
    """Speed at a distance from rest: braked evenly, then dying away."""
    return min(most_m_s, _GAIN_PER_S * distance_m, math.sqrt(2.0 * _BRAKE_M_S2 * max(0.0, distance_m)))


def towards(p_base: FloatArray, p_goal: FloatArray, most_m_s: float) -> FloatArray:
    """(3,) m/s straight to a place."""
    way = p_goal - p_base
    distance_m = float(np.linalg.norm(way))
    return np.asarray(way * (speed(distance_m, most_m_s) / max(distance_m, 1e-9)))
