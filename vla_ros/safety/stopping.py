"""The shortest simple way to rest of a tool that keeps acceleration and jerk, tick by tick and exactly.

Time goes in ticks: acceleration and jerk are differences of the velocities of successive ticks, so what is planned here
is what anybody finds who differentiates the poses that are sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from vla_ros.types import FloatArray

Vector = tuple[float, float, float]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RateLimits:
    """Limits of a vector's motion, by norm: speed, acceleration and jerk. All are zero or none is."""

    velocity: float
    acceleration: float
    jerk: float

    @property
    def is_zero(self) -> bool:
        """Whether nothing may move."""
        return min(self.velocity, self.acceleration, self.jerk) <= 0.0

    def scaled(self, scale: float) -> RateLimits:
        """A fraction of all three."""
        return RateLimits(scale * self.velocity, scale * self.acceleration, scale * self.jerk)

    def reach(self, speed: float, acceleration: float, dt_s: float) -> float:
        """More than the way of a stop from a speed and an acceleration, in whatever directions."""
        fade_s = acceleration / self.jerk + 2.0 * dt_s
        peak = speed + acceleration * fade_s
        ramp_s = self.acceleration / self.jerk + 6.0 * dt_s
        return peak * (0.5 * peak / self.acceleration + ramp_s + 2.0 * fade_s)


@dataclass(frozen=True)
class StopPlan:
    """Accelerations of the ticks to come: from `begin` in even steps to `brake`, on at `brake`, in even steps to zero.

    Attributes:
        begin: acceleration of the tick before the first.
        brake: acceleration while braking.
        ticks: numbers of ticks of the three phases.
        dt_s: duration of a tick.
        done: ticks that have passed.
    """

    begin: Vector
    brake: Vector
    ticks: tuple[int, int, int]
    dt_s: float
    done: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the vector rests."""
        return self.done >= sum(self.ticks)

    def next(self) -> tuple[Vector, StopPlan]:
        """Acceleration of the tick that begins now, and the rest of the plan."""
        ramp, hold, fade = self.ticks
        tick = self.done + 1
        bx, by, bz = self.brake
        if tick <= ramp:
            part = tick / ramp
            x, y, z = self.begin
            acceleration = (x + part * (bx - x), y + part * (by - y), z + part * (bz - z))
        else:
            part = min(1.0, max(0.0, 1.0 - (tick - ramp - hold) / fade))
            acceleration = (part * bx, part * by, part * bz)
        return acceleration, replace(self, done=tick)

    def path(self, p: Vector, v: Vector) -> FloatArray:
        """(ticks, 3) where a point at `p` with velocity `v` will be; for a plan that hasn't begun."""
        dt = self.dt_s
        steps = np.array([[dt * x for x in v], [dt * dt * x for x in self.begin], [dt * dt * x for x in self.brake]])
        return np.asarray(_weights(*self.ticks) @ steps + p)


@lru_cache(maxsize=1024)
def _weights(ramp: int, hold: int, fade: int) -> FloatArray:
    """(ticks, 3) of what velocity and the two accelerations of a plan move a point after each tick."""
    up = np.arange(1, ramp + 1) / ramp
    down = 1.0 - np.arange(1, fade + 1) / fade
    begin = np.concatenate([1.0 - up, np.zeros(hold + fade)])
    brake = np.concatenate([up, np.ones(hold), down])
    moved = [np.cumsum(np.cumsum(weights)) for weights in (begin, brake)]
    return np.column_stack([np.arange(1, len(begin) + 1), *moved])


def plan_stop(v: Vector, a: Vector, limits: RateLimits, dt_s: float) -> StopPlan | None:
    """A way to rest from a velocity and an acceleration, None if the one found goes past the velocity limit.

    The velocity taken away is linear in the acceleration held while braking, so that follows from the numbers of ticks
    in closed form. The numbers are the smallest, but for a tick or two, with which it keeps acceleration and jerk.

    Args:
        v: velocity of the tick before.
        a: acceleration of the tick before.
        limits: not zero.
        dt_s: duration of a tick.
    """
    vx, vy, vz = v
    ax, ay, az = a
    jerk_step = limits.jerk * dt_s * (1.0 + _ROUNDING)
    a_max = limits.acceleration
    most_fade = math.ceil(a_max / jerk_step)
    ramp = 1
    while True:
        twice, less = 2.0 / dt_s, ramp - 1
        ux, uy, uz = twice * vx + less * ax, twice * vy + less * ay, twice * vz + less * az
        change = math.sqrt(ux * ux + uy * uy + uz * uz)
        fade = max(1, math.ceil(math.sqrt(0.25 * ramp * ramp + change / jerk_step) - 0.5 * ramp))
        hold = 0
        if fade > most_fade or change > a_max * (ramp + fade):
            fade = most_fade
            hold = max(0, math.ceil(0.5 * (change / min(a_max, fade * jerk_step) - ramp - fade)))
        scale = -1.0 / (ramp + 2 * hold + fade)
        bx, by, bz = scale * ux, scale * uy, scale * uz
        cx, cy, cz = bx - ax, by - ay, bz - az
        needed = math.sqrt(cx * cx + cy * cy + cz * cz) / jerk_step
        if needed <= ramp:
            break
        ramp = max(ramp + 1, math.ceil(needed - _ROUNDING))
    v_max = limits.velocity * (1.0 + _ROUNDING)
    if math.sqrt(vx * vx + vy * vy + vz * vz) + dt_s * ramp * math.sqrt(ax * ax + ay * ay + az * az) > v_max:
        sx, sy, sz = (bx - ax) / ramp, (by - ay) / ramp, (bz - az) / ramp
        for _ in range(ramp):
            ax, ay, az = ax + sx, ay + sy, az + sz
            vx, vy, vz = vx + dt_s * ax, vy + dt_s * ay, vz + dt_s * az
            if vx * vx + vy * vy + vz * vz > v_max * v_max:
                return None
    return StopPlan(a, (bx, by, bz), (ramp, hold, fade), dt_s)
