"""Speed, acceleration and jerk of the tool's translation or its rotation, each a vector with limits of its length."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from vla_ros.safety.stopping import RateLimits, StopPlan, Vector, plan_stop

ZERO: Vector = (0.0, 0.0, 0.0)
# Rounding of the differences of poses.
_SLACK = 1.0 + 1e-9
# Time in which a small gap shrinks to 1/e, where acceleration and jerk allow it.
_CATCH_UP_S = 0.06


class PartMotion(NamedTuple):
    """Motion of the tool's translation or rotation at a tick; see ToolMotion."""

    v: Vector
    a: Vector
    is_on: bool = True
    stop: StopPlan | None = None


class PartRate:
    """Speed, acceleration and jerk of either the tool's translation or its rotation.

    Args:
        limits: in m or rad, and s.
        name: `tool` or `tool rotation`, for the verdict.
        unit: of the way, `m` or `rad`.
    """

    def __init__(self, limits: RateLimits, name: str, unit: str) -> None:
        self.limits, self._name, self._unit = limits, name, unit

    def step(
        self, gap: Vector, wanted: PartMotion, last: PartMotion, dt_s: float, scale: float
    ) -> tuple[PartMotion, str]:
        """One tick, and why the wanted motion didn't pass, empty if it did.

        Args:
            gap: from where the tool is to where it is wanted at the end of the tick.
            wanted: motion there.
            last: of the tick before.
            dt_s: duration of a tick.
            scale: fraction of the limits in force.
        """
        limits = self.limits if scale >= 1.0 else self.limits.scaled(scale)
        if self.limits.is_zero:
            reason = "" if gap == ZERO else f"{self._name} stands still: {self._zero_limit()} is 0"
            return PartMotion(ZERO, ZERO, not reason), reason
        (gx, gy, gz), (vx, vy, vz), (ax, ay, az) = gap, last.v, last.a
        v = ux, uy, uz = gx / dt_s, gy / dt_s, gz / dt_s
        a = bx, by, bz = (ux - vx) / dt_s, (uy - vy) / dt_s, (uz - vz) / dt_s
        cx, cy, cz = bx - ax, by - ay, bz - az
        speed = math.sqrt(ux * ux + uy * uy + uz * uz)
        size = math.sqrt(bx * bx + by * by + bz * bz)
        jerk = math.sqrt(cx * cx + cy * cy + cz * cz) / dt_s
        keeps = jerk <= limits.jerk and size <= limits.acceleration and speed <= limits.velocity
        if keeps and (last.is_on or _goes_on(v, a, wanted, limits, dt_s)):
            # The first of these holds far from the speed limit, and the others with it.
            if speed + size * (0.5 * (size + limits.acceleration) / limits.jerk + dt_s) <= limits.velocity:
                return PartMotion(v, a), ""
            passed = self.let_through(v, a, True, dt_s) if _settles(v, a, size, limits, dt_s) else None
            if passed is not None:
                return passed, ""
        reason = self._why(gap, speed, size, jerk, limits)
        return self.steer(*_pursuit(gap, wanted, limits, dt_s), last, limits, dt_s), reason

    def steer(self, v_ref: Vector, a_ref: Vector, last: PartMotion, limits: RateLimits, dt_s: float) -> PartMotion:
        """One tick towards a velocity, slowing the change down in time.

        Args:
            v_ref: velocity to come to.
            a_ref: its derivative.
            last: of the tick before.
            limits: in force.
            dt_s: duration of a tick.
        """
        (vx, vy, vz), (ax, ay, az) = last.v, last.a
        ex, ey, ez = v_ref[0] - vx, v_ref[1] - vy, v_ref[2] - vz
        off = math.sqrt(ex * ex + ey * ey + ez * ez)
        gain = min(4.0 / _catch_up_s(limits, dt_s), math.sqrt(limits.jerk / off)) if off > 0.0 else 0.0
        wx, wy, wz = _shortened((gain * ex + a_ref[0], gain * ey + a_ref[1], gain * ez + a_ref[2]), limits.acceleration)
        jx, jy, jz = _shortened((wx - ax, wy - ay, wz - az), limits.jerk * dt_s)
        a = ax + jx, ay + jy, az + jz
        v = vx + dt_s * a[0], vy + dt_s * a[1], vz + dt_s * a[2]
        return self.let_through(v, a, False, dt_s) or self.brake(last, dt_s)

    def brake(self, last: PartMotion, dt_s: float) -> PartMotion:
        """One tick of coming to rest, on the way that was found good when there is one."""
        if last.v == ZERO and last.a == ZERO:
            return PartMotion(ZERO, ZERO, False)
        stop = last.stop
        if stop is None or stop.dt_s != dt_s:
            stop = plan_stop(last.v, last.a, self.limits, dt_s)
        if stop is None:
            # A motion that was seeded, not let through, may be past the speed limit until it has been braked.
            stop = plan_stop(last.v, last.a, replace(self.limits, velocity=math.inf), dt_s)
        if stop is None:
            raise ArithmeticError(f"no way to rest from {last}")
        (ax, ay, az), stop = stop.next()
        if stop.is_over:
            return PartMotion(ZERO, ZERO, False)
        vx, vy, vz = last.v
        return PartMotion((vx + dt_s * ax, vy + dt_s * ay, vz + dt_s * az), (ax, ay, az), False, stop)

    def let_through(self, v: Vector, a: Vector, is_on: bool, dt_s: float) -> PartMotion | None:
        """The motion, with a way to rest where that isn't beyond doubt; None if it can't be braked inside the limits.

        Args:
            v: velocity in the tick that begins now.
            a: its difference to the one before, per second; inside its limit.
            is_on: whether it is what was wanted.
            dt_s: duration of a tick.
        """
        limits, size = self.limits, norm(a)
        ramp = (size + limits.acceleration) / (limits.jerk * dt_s) + 2.0
        if norm(v) + 0.5 * dt_s * size * ramp <= limits.velocity:
            return PartMotion(v, a, is_on)
        stop = plan_stop(v, a, limits, dt_s) if norm(v) <= limits.velocity * _SLACK else None
        return None if stop is None else PartMotion(v, a, is_on, stop)

    def _why(self, gap: Vector, speed: float, size: float, jerk: float, limits: RateLimits) -> str:
        name, unit = self._name, self._unit
        if speed > limits.velocity:
            return f"{name} speed {speed:.3f} {unit}/s, limit {limits.velocity:.3f} {unit}/s"
        if size > limits.acceleration:
            return f"{name} changes by {size:.3f} {unit}/s^2, limit {limits.acceleration:.3f} {unit}/s^2"
        if jerk > limits.jerk:
            return f"{name} jerk {jerk:.1f} {unit}/s^3, limit {limits.jerk:.1f} {unit}/s^3"
        return f"{name} is catching up, {norm(gap):.4f} {unit} away, limit {limits.velocity:.3f} {unit}/s"

    def _zero_limit(self) -> str:
        names = ("velocity", "acceleration", "jerk")
        return next(f"its {name} limit" for name in names if getattr(self.limits, name) <= 0.0)


def _pursuit(gap: Vector, wanted: PartMotion, limits: RateLimits, dt_s: float) -> tuple[Vector, Vector]:
    """Velocity that closes a gap to a motion without shooting past, and that motion's acceleration to go along with."""
    (wx, wy, wz), (ax, ay, az) = wanted.v, wanted.a
    # As of the tick before, like what it is compared with: gap, and mean velocity, without the way since then.
    wx, wy, wz = wx - 0.5 * dt_s * ax, wy - 0.5 * dt_s * ay, wz - 0.5 * dt_s * az
    bx, by, bz = gap[0] - dt_s * wx, gap[1] - dt_s * wy, gap[2] - dt_s * wz
    wx, wy, wz = _shortened((wx - dt_s * ax, wy - dt_s * ay, wz - dt_s * az), limits.velocity)
    distance = math.sqrt(bx * bx + by * by + bz * bz)
    gain = 1.0 / _catch_up_s(limits, dt_s)
    if distance > 0.0:
        gain = min(gain, math.sqrt(limits.acceleration / distance))
    v_ref = wx + gain * bx, wy + gain * by, wz + gain * bz
    if norm(v_ref) > limits.velocity or norm(wanted.a) > limits.acceleration:
        return _shortened(v_ref, limits.velocity), ZERO
    return v_ref, wanted.a


def _settles(v: Vector, a: Vector, size: float, limits: RateLimits, dt_s: float) -> bool:
    """Whether the speed keeps its limit while the acceleration is taken back."""
    after_s = 0.5 * dt_s * (math.ceil(size / (limits.jerk * dt_s)) - 1)
    return norm((v[0] + after_s * a[0], v[1] + after_s * a[1], v[2] + after_s * a[2])) <= limits.velocity


def _goes_on(v: Vector, a: Vector, wanted: PartMotion, limits: RateLimits, dt_s: float) -> bool:
    """Whether a motion that comes onto the wanted one in this tick could stay on it in the next ones, too.

    One that only crosses it, at another speed, would take it up and lose it again.
    """
    (wx, wy, wz), (cx, cy, cz) = wanted.v, wanted.a
    nx, ny, nz = (
        (wx - v[0]) / dt_s + 0.5 * cx,
        (wy - v[1]) / dt_s + 0.5 * cy,
        (wz - v[2]) / dt_s + 0.5 * cz,
    )
    jerk_step = limits.jerk * dt_s
    return (
        norm((nx, ny, nz)) <= limits.acceleration
        and norm((nx - a[0], ny - a[1], nz - a[2])) <= jerk_step
        and norm((cx - nx, cy - ny, cz - nz)) <= jerk_step
    )


def _catch_up_s(limits: RateLimits, dt_s: float) -> float:
    return max(_CATCH_UP_S, 2.0 * limits.acceleration / limits.jerk, 10.0 * dt_s)


def norm(v: Vector) -> float:
    """Length of a vector."""
    x, y, z = v
    return math.sqrt(x * x + y * y + z * z)


def _shortened(v: Vector, longest: float) -> Vector:
    length = norm(v)
    if length <= longest:
        return v
    if length == math.inf:
        return ZERO
    scale = longest / length
    return scale * v[0], scale * v[1], scale * v[2]
