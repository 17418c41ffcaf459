"""A gripper's way to where it is sent, and what becomes of it: there, or stopped by something on the way.

Everything is in openings, 0 closed .. 1 open.
"""

from __future__ import annotations

import math
from enum import Enum

# Nearer than this counts as there; a finger that moves less within that time stands.
_TOLERANCE, _STILL, _STILL_S = 0.02, 0.004, 0.25


class Way(Enum):
    """How far the way is."""

    MOVING = "moving"
    REACHED = "reached"
    STALLED = "stalled"


class FingerMotion:
    """One way of the fingers.

    Args:
        start: where they are.
        goal: where they are sent.
        speed_per_s: how fast, openings per second.
    """

    def __init__(self, start: float, goal: float, speed_per_s: float = math.inf) -> None:
        self.command = start
        self._goal, self._speed = min(max(goal, 0.0), 1.0), speed_per_s
        self._anchor, self._still_s = start, 0.0

    def step(self, dt_s: float, measured: float) -> Way:
        """Advances `command` by a while and says how far the way is, the fingers being at `measured`."""
        step = self._speed * dt_s
        self.command += min(max(self._goal - self.command, -step), step)
        if abs(measured - self._goal) < _TOLERANCE:
            return Way.REACHED
        self._still_s += dt_s
        if abs(measured - self._anchor) > _STILL:
            self._anchor, self._still_s = measured, 0.0
        is_slow = self._speed * _STILL_S < 2.0 * _STILL
        return Way.STALLED if self._still_s > _STILL_S and not (is_slow and self.command != self._goal) else Way.MOVING
