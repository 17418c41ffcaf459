"""Speed, acceleration and jerk of the tool: a wanted motion that keeps them passes, another one is caught up with."""

from __future__ import annotations

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.safety.part_rate import ZERO, PartMotion, PartRate, norm
from vla_ros.safety.stopping import RateLimits, Vector
from vla_ros.safety.tool_motion import ToolMotion, turn_between
from vla_ros.types import FloatArray, Intervention


class ToolRate:
    """Keeps speed, acceleration and jerk of the tool, in translation and rotation, and catches up when it may.

    A wanted motion that keeps the limits passes untouched. Otherwise the tool follows it inside the limits, slowing
    down in time so as not to shoot past. From every motion let through there is a way to rest that keeps the limits,
    too. A part of which a limit is zero stands still.

    Args:
        translation: limits in m and s.
        rotation: limits in rad and s.
    """

    name = "tool_rate"

    def __init__(self, translation: RateLimits, rotation: RateLimits) -> None:
        self.translation = PartRate(translation, "tool", "m")
        self.rotation = PartRate(rotation, "tool rotation", "rad")
        # A motion can be planned with these, whatever is let through of it in a part that stands still.
        still = RateLimits(1.0, 10.0, 1000.0)
        planned = [still if limits.is_zero else limits for limits in (translation, rotation)]
        self.velocity = planned[0].velocity, planned[1].velocity
        self.acceleration = planned[0].acceleration, planned[1].acceleration
        self.jerk = planned[0].jerk, planned[1].jerk

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit."""
        (p_wanted, turn_wanted), (p_last, turn_last) = parts_of(wanted), parts_of(last)
        way = way_between(last.T_base_tcp, wanted.T_base_tcp)
        turn = turn_between(last.T_base_tcp, wanted.T_base_tcp)
        translation, why = self.translation.step(way, p_wanted, p_last, dt_s, scale)
        rotation, why_turn = self.rotation.step(turn, turn_wanted, turn_last, dt_s, scale)
        motion = moved(last, translation, rotation, dt_s, wanted)
        if not why and not why_turn:
            return motion, None
        return motion, Intervention(self.name, "; ".join(reason for reason in (why, why_turn) if reason))

    def brake(self, last: ToolMotion, dt_s: float) -> ToolMotion:
        """One tick of coming to rest as soon as acceleration and jerk allow."""
        translation, rotation = parts_of(last)
        return moved(last, self.translation.brake(translation, dt_s), self.rotation.brake(rotation, dt_s), dt_s)

    def share(self, motion: ToolMotion) -> float:
        """How much of the limits of speed and acceleration a motion takes, 1 for all of one of them."""
        share = 0.0
        for part, rate in zip(parts_of(motion), (self.translation, self.rotation), strict=True):
            limits = rate.limits
            if not limits.is_zero:
                share = max(share, norm(part.v) / limits.velocity, norm(part.a) / limits.acceleration)
        return share


def parts_of(motion: ToolMotion) -> tuple[PartMotion, PartMotion]:
    """Translation and rotation of a motion."""
    if motion.parts is not None:
        return motion.parts
    vx, vy, vz, wx, wy, wz = motion.twist.tolist()
    ax, ay, az, bx, by, bz = motion.acceleration.tolist()
    return PartMotion((vx, vy, vz), (ax, ay, az)), PartMotion((wx, wy, wz), (bx, by, bz))


def moved(
    last: ToolMotion, translation: PartMotion, rotation: PartMotion, dt_s: float, wanted: ToolMotion | None = None
) -> ToolMotion:
    """The motion a tick later.

    Args:
        last: of the tick before.
        translation: in this tick.
        rotation: in this tick.
        dt_s: duration of a tick.
        wanted: where parts that are on it are taken from as they are.
    """
    if wanted is not None and translation.is_on and rotation.is_on:
        T = wanted.T_base_tcp
    else:
        T = last.T_base_tcp.copy() if wanted is None else wanted.T_base_tcp.copy()
        if wanted is None or not translation.is_on:
            vx, vy, vz = translation.v
            x, y, z = last.T_base_tcp[:3, 3].tolist()
            T[:3, 3] = x + dt_s * vx, y + dt_s * vy, z + dt_s * vz
        if wanted is None or not rotation.is_on:
            T[:3, :3] = _turned(last.T_base_tcp[:3, :3], rotation.v, dt_s)
    twist = np.array([*translation.v, *rotation.v])
    acceleration = np.array([*translation.a, *rotation.a])
    return ToolMotion(T, twist, acceleration, (translation, rotation))


def way_between(T_from: FloatArray, T_to: FloatArray) -> Vector:
    """From one pose's position to the other's, m."""
    (fx, fy, fz), (tx, ty, tz) = T_from[:3, 3].tolist(), T_to[:3, 3].tolist()
    return tx - fx, ty - fy, tz - fz


def _turned(R: FloatArray, velocity: Vector, dt_s: float) -> FloatArray:
    if velocity == ZERO:
        return R
    return rotations.rotvec_to_matrix(dt_s * np.array(velocity)) @ R
