"""Limits of the tool's motion, one small class each: motion in, permitted motion and a named intervention out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray, Intervention


@dataclass(frozen=True)
class ToolMotion:
    """Pose and motion of the tcp in base.

    Attributes:
        T_base_tcp: (4, 4).
        twist: (6,) linear m/s, angular rad/s, in base axes.
        acceleration: (6,) its derivative.
    """

    T_base_tcp: FloatArray
    twist: FloatArray
    acceleration: FloatArray


def at_rest(T_base_tcp: FloatArray) -> ToolMotion:
    """A tool that stands still."""
    return ToolMotion(T_base_tcp, np.zeros(6), np.zeros(6))


class ToolLimit(Protocol):
    """A limit of the tool's motion."""

    name: str

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """The motion nearest to the wanted one that keeps the limit.

        Args:
            wanted: for the tick that begins now.
            last: what was let through in the tick before.
            dt_s: duration of a tick.
            scale: fraction of the limit in force (soft start), in (0, 1].
        """


class WorkspaceBox:
    """Keeps the tcp inside an axis-aligned box of the base frame."""

    name = "workspace"

    def __init__(self, lower_m: FloatArray, upper_m: FloatArray) -> None:
        self.lower_m, self.upper_m = np.asarray(lower_m), np.asarray(upper_m)

    def contains(self, p_base: FloatArray) -> bool:
        """Whether a point, m, is inside."""
        return bool(np.all(p_base >= self.lower_m) and np.all(p_base <= self.upper_m))

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit. The motion along the walls goes on."""
        p = wanted.T_base_tcp[:3, 3]
        if self.contains(p):
            return wanted, None
        clamped = np.clip(p, self.lower_m, self.upper_m)
        axis = int(np.argmax(np.abs(p - clamped)))
        twist, acceleration = wanted.twist.copy(), wanted.acceleration.copy()
        twist[:3][p != clamped] = 0.0
        acceleration[:3][p != clamped] = 0.0
        reason = (
            f"tcp wanted at {'xyz'[axis]} = {p[axis]:.3f} m, "
            f"workspace [{self.lower_m[axis]:.3f}, {self.upper_m[axis]:.3f}] m"
        )
        pose = se3.make_pose(clamped, wanted.T_base_tcp[:3, :3])
        return ToolMotion(pose, twist, acceleration), Intervention(self.name, reason)


class ToolRate:
    """Keeps speed and acceleration of the tool, in translation and rotation, and catches up when it may.

    A wanted motion that keeps the limits passes untouched. Otherwise the tool follows it at the limit, slowing down in
    time so as not to shoot past.

    Args:
        velocity: (2,) limits, m/s and rad/s.
        acceleration: (2,) limits, m/s^2 and rad/s^2.
    """

    name = "tool_rate"
    _catch_up_s = 0.06

    def __init__(self, velocity: tuple[float, float], acceleration: tuple[float, float]) -> None:
        self.velocity, self.acceleration = velocity, acceleration

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit."""
        gap = se3.pose_error(last.T_base_tcp, wanted.T_base_tcp)
        step_twist = gap / dt_s
        reasons = []
        twist = np.empty(6)
        for part, (name, unit) in enumerate((("speed", "m/s"), ("angular speed", "rad/s"))):
            rows = slice(3 * part, 3 * part + 3)
            v_max, a_max = scale * self.velocity[part], scale * self.acceleration[part]
            speed = _norm(step_twist[rows])
            change = _norm(step_twist[rows] - last.twist[rows])
            if speed <= v_max and change <= a_max * dt_s:
                twist[rows] = step_twist[rows]
                continue
            # Behind where the wanted motion was a tick ago: its own way in this tick isn't a gap to close.
            behind = gap[rows] - dt_s * wanted.twist[rows]
            twist[rows] = self._follow(behind, wanted.twist[rows], last.twist[rows], v_max, a_max, dt_s)
            if speed > v_max:
                reasons.append(f"tool {name} {speed:.3f} {unit}, limit {v_max:.3f} {unit}")
            else:
                reasons.append(f"tool {name} changes by {change / dt_s:.3f} {unit}^2, limit {a_max:.3f} {unit}^2")
        if not reasons:
            return ToolMotion(wanted.T_base_tcp, step_twist, wanted.acceleration), None
        return _moved(last, twist, dt_s), Intervention(self.name, "; ".join(reasons))

    def brake(self, last: ToolMotion, dt_s: float) -> ToolMotion:
        """The next tick of coming to rest at the acceleration limit."""
        twist = last.twist.copy()
        for part in (0, 1):
            rows = slice(3 * part, 3 * part + 3)
            speed = _norm(twist[rows])
            twist[rows] *= max(0.0, 1.0 - self.acceleration[part] * dt_s / speed) if speed > 0.0 else 0.0
        return _moved(last, twist, dt_s)

    def share(self, motion: ToolMotion) -> float:
        """How much of the speed limits a motion takes, 1 for all of one of them."""
        speeds = (_norm(motion.twist[:3]), _norm(motion.twist[3:]))
        return max(
            0.0 if speed == 0.0 else (speed / limit if limit > 0.0 else math.inf)
            for speed, limit in zip(speeds, self.velocity, strict=True)
        )

    def _follow(
        self,
        gap: FloatArray,
        wanted_velocity: FloatArray,
        last_velocity: FloatArray,
        v_max: float,
        a_max: float,
        dt_s: float,
    ) -> FloatArray:
        distance = _norm(gap)
        catch_up = min(1.0 / self._catch_up_s, math.sqrt(a_max / distance)) if distance > 0.0 else 0.0
        velocity = _shorten(_shorten(wanted_velocity, v_max) + catch_up * gap, v_max)
        return last_velocity + _shorten(velocity - last_velocity, a_max * dt_s)


class StoppingRoom:
    """Lets the tool go only as fast towards a wall of the workspace as it can stop before it, whatever comes next.

    It keeps the point where the tool would come to rest, if it braked from now on, inside the box. Braking doesn't move
    that point, so there is always a way to go on. A tool that starts outside may come back in, but not go further out.

    Args:
        box: the workspace.
        rate: what the tool brakes with.
    """

    name = "workspace"
    _tolerance_m = 1e-12
    # Part of the acceleration that slowing down for a wall takes; the rest is for what goes on along it.
    _taper = 0.5

    def __init__(self, box: WorkspaceBox, rate: ToolRate) -> None:
        self._box, self._rate = box, rate
        v_max, a_max = rate.velocity[0], rate.acceleration[0]
        reach = 0.5 * v_max**2 / a_max if a_max > 0.0 else math.inf
        self._far_from_walls = WorkspaceBox(box.lower_m + reach, box.upper_m - reach)

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit. `wanted` keeps the rate limits already; the rotation goes on as wanted."""
        if self._far_from_walls.contains(wanted.T_base_tcp[:3, 3]):
            return wanted, None
        allowed = np.maximum(self._excess(last, dt_s), 0.0) + self._tolerance_m
        excess = self._excess(wanted, dt_s)
        if np.all(excess <= allowed):
            return wanted, None
        axis = int(np.argmax(excess - allowed))
        speed = _norm(wanted.twist[:3])
        reason = f"tcp wanted at {speed:.3f} m/s too near to the workspace's wall along {'xyz'[axis]} to stop inside"
        twist = wanted.twist.copy()
        change = self._tapered(wanted, last, excess > allowed) - last.twist[:3]
        twist[:3] = last.twist[:3] + _shorten(change, scale * self._rate.acceleration[0] * dt_s)
        slowed = _moved(last, twist, dt_s)
        if np.any(self._excess(slowed, dt_s) > allowed):
            twist[:3] = self._rate.brake(last, dt_s).twist[:3]
            slowed = _moved(last, twist, dt_s)
        return slowed, Intervention(self.name, reason)

    def _excess(self, motion: ToolMotion, dt_s: float) -> FloatArray:
        """(3,) m, how far outside the box the tool comes to rest, braking tick by tick; negative inside."""
        p, v = motion.T_base_tcp[:3, 3], motion.twist[:3]
        speed, step = _norm(v), self._rate.acceleration[0] * dt_s
        if speed > 0.0 and step > 0.0:
            ticks = math.floor(speed / step)
            p = p + v * (dt_s * (ticks - 0.5 * ticks * (ticks + 1) * step / speed))
        return np.maximum(p - self._box.upper_m, self._box.lower_m - p)

    def _tapered(self, wanted: ToolMotion, last: ToolMotion, is_tight: NDArray[np.bool_]) -> FloatArray:
        """(3,) the wanted velocity, along the tight axes no faster than a gentle stop before the wall allows.

        A straight stop from u, with w the speed along the other axes, takes u sqrt(u^2 + w^2) / 2a along the axis.
        """
        velocity = wanted.twist[:3].copy()
        p = last.T_base_tcp[:3, 3]
        for axis in np.flatnonzero(is_tight):
            wall = self._box.upper_m[axis] if velocity[axis] > 0.0 else self._box.lower_m[axis]
            room = max(0.0, float((wall - p[axis]) * np.sign(velocity[axis])))
            w2 = float(velocity @ velocity - velocity[axis] ** 2)
            reach = 2.0 * self._taper * self._rate.acceleration[0] * room
            u = math.sqrt(0.5 * (math.sqrt(w2 * w2 + 4.0 * reach * reach) - w2))
            velocity[axis] = math.copysign(min(abs(velocity[axis]), u), velocity[axis])
        return velocity


def _moved(last: ToolMotion, twist: FloatArray, dt_s: float) -> ToolMotion:
    """The motion after a tick with a twist."""
    p = last.T_base_tcp[:3, 3] + dt_s * twist[:3]
    R = rotations.rotvec_to_matrix(dt_s * twist[3:]) @ last.T_base_tcp[:3, :3]
    return ToolMotion(se3.make_pose(p, R), twist, (twist - last.twist) / dt_s)


def _norm(v: FloatArray) -> float:
    return math.sqrt(float(v @ v))


def _shorten(v: FloatArray, length: float) -> FloatArray:
    norm = _norm(v)
    return v if norm <= length else v * (length / norm)
