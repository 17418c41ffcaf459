"""The tool stays out of forbidden regions: it isn't aimed into them, and it can always stop before them."""

from __future__ import annotations

import math
from dataclasses import replace

from vla_ros.safety.part_rate import ZERO, PartMotion
from vla_ros.safety.rate import ToolRate, moved, parts_of
from vla_ros.safety.regions import Region, Regions
from vla_ros.safety.stopping import Vector, plan_stop
from vla_ros.safety.tool_motion import ToolMotion
from vla_ros.types import Intervention

# Regions that meet are gone through so often; what is left in then is StoppingRoom's.
_ROUNDS = 4


class KeepOut:
    """Takes a motion that is wanted inside a forbidden region to the nearest point of its border, and round spheres.

    Args:
        regions: forbidden ones.
    """

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit. The motion along the border goes on."""
        x, y, z = wanted.T_base_tcp[:3, 3].tolist()
        is_inside = bool(self._regions.within((x, y, z), 0.0))
        if not is_inside and not self._regions.keep_out:
            return wanted, None
        depth, region = self._regions.nearest((x, y, z)) if is_inside else (0.0, None)
        p, v, a = self._outside((x, y, z), wanted) if region is not None else ((x, y, z), ZERO, ZERO)
        here = tuple(last.T_base_tcp[:3, 3].tolist())
        for zone in self._regions.keep_out:
            aim = zone.aim(here, p)
            if aim != p:
                p, v, a, region = aim, ZERO, ZERO, region or zone
        if region is None:
            return wanted, None
        T, twist, acceleration = wanted.T_base_tcp.copy(), wanted.twist.copy(), wanted.acceleration.copy()
        T[:3, 3], twist[:3], acceleration[:3] = p, v, a
        where = f"{depth:.3f} m behind" if depth > 0.0 else "past"
        reason = f"tcp wanted at ({x:.3f}, {y:.3f}, {z:.3f}) m, {where} {region.what}"
        return ToolMotion(T, twist, acceleration), Intervention(region.name, reason)

    def _outside(self, p: Vector, wanted: ToolMotion) -> tuple[Vector, Vector, Vector]:
        """Position, velocity and acceleration on the borders of the regions that hold a wanted motion."""
        vx, vy, vz, *_ = wanted.twist.tolist()
        ax, ay, az, *_ = wanted.acceleration.tolist()
        v, a = (vx, vy, vz), (ax, ay, az)
        for _ in range(_ROUNDS):
            for region in self._regions.within(p, 0.0):
                if region.depth(p) > 0.0:
                    p = region.nearest(p)
                    v, a = _without(v, region.outwards(p)), _without(a, region.outwards(p))
        return p, v, a


class StoppingRoom:
    """Lets the tool go only as fast towards a forbidden region as it can stop before it, whatever comes next.

    A motion is let through if the way to rest from it stays out; the way is kept, so that there is always one to go on
    with. Towards a region the tool slows down, along it goes on. From inside it comes out and goes no deeper.

    Args:
        regions: forbidden ones.
        rate: what the tool brakes with.
    """

    # Part of the acceleration that slowing down takes; the rest is for what goes on along the border.
    _taper = 0.5
    _taper_s = 0.06

    def __init__(self, regions: Regions, rate: ToolRate) -> None:
        self._regions, self._rate = regions, rate.translation

    def apply(
        self, wanted: ToolMotion, last: ToolMotion, dt_s: float, scale: float
    ) -> tuple[ToolMotion, Intervention | None]:
        """See ToolLimit. `wanted` keeps the rate limits already; the rotation goes on as wanted."""
        limits = self._rate.limits
        if limits.is_zero:
            return wanted, None
        translation, rotation = parts_of(wanted)
        x, y, z = last.T_base_tcp[:3, 3].tolist()
        checked, hit = self._checked(translation, (x, y, z), dt_s)
        if hit is None:
            return (wanted if checked is translation else replace(wanted, parts=(checked, rotation))), None
        before = parts_of(last)[0]
        tapered = self._tapered(checked.v, (x, y, z), dt_s)
        in_force = limits if scale >= 1.0 else limits.scaled(scale)
        slower, still_hit = self._checked(self._rate.steer(tapered, ZERO, before, in_force, dt_s), (x, y, z), dt_s)
        if still_hit is not None:
            slower = self._rate.brake(before, dt_s)
        reason = f"tcp wanted at {math.hypot(*checked.v):.3f} m/s too near to {hit.what} to stop before it"
        # The rotation, where it is on the wanted one, is taken from there.
        return moved(last, slower, rotation, dt_s, wanted), Intervention(hit.name, reason)

    def _checked(self, motion: PartMotion, p_last: Vector, dt_s: float) -> tuple[PartMotion, Region | None]:
        """The motion with a way to rest that stays out, where that isn't beyond doubt; else what it would come into."""
        (vx, vy, vz), limits = motion.v, self._rate.limits
        p = p_last[0] + dt_s * vx, p_last[1] + dt_s * vy, p_last[2] + dt_s * vz
        near = self._regions.within(p, limits.reach(math.hypot(vx, vy, vz), math.hypot(*motion.a), dt_s))
        if not near:
            return motion, None
        stop = motion.stop or plan_stop(motion.v, motion.a, limits, dt_s)
        if stop is None or stop.done:
            return motion, near[0]
        path = stop.path(p, motion.v)
        for region in near:
            allowed = max(self._regions.tolerance_m, region.depth(p_last))
            if max(region.depth(p), region.deepest(path)) > allowed:
                return motion, region
        return motion._replace(stop=stop), None

    def _tapered(self, v: Vector, p: Vector, dt_s: float) -> Vector:
        """A velocity no faster towards the regions than a gentle stop before them allows.

        A straight stop from u towards a border, w along it, takes u (u + w) / 2a of way at most.
        """
        limits = self._rate.limits
        a = self._taper * limits.acceleration
        near = self._regions.within(p, limits.reach(math.hypot(*v), limits.acceleration, dt_s))
        # Twice, since what is taken away for one may lead into another.
        for region in near + near:
            x, y, z = region.outwards(p)
            u = -(v[0] * x + v[1] * y + v[2] * z)
            if u <= 0.0:
                continue
            room = max(0.0, -region.depth(p))
            along = math.sqrt(max(0.0, v[0] * v[0] + v[1] * v[1] + v[2] * v[2] - u * u))
            slow = self._taper_s + 0.5 * along / a
            less = u - min(u, a * (math.sqrt(slow * slow + 2.0 * room / a) - slow))
            v = v[0] + less * x, v[1] + less * y, v[2] + less * z
        return v


def _without(v: Vector, direction: Vector) -> Vector:
    """What is left of a vector when what of it goes against a direction is taken away."""
    x, y, z = direction
    against = min(0.0, v[0] * x + v[1] * y + v[2] * z)
    return v[0] - against * x, v[1] - against * y, v[2] - against * z
