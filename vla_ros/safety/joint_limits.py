"""Limits of motion that is wanted in joint space: no leaps, and the tool can stop before it is where it may not be.

They keep the target sane; velocity, acceleration and jerk of every joint are the joint guard's, downstream.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.safety.regions import Regions
from vla_ros.safety.stopping import Vector
from vla_ros.types import FloatArray, Intervention, JointTarget

# Part of the joints' acceleration that a stop takes: the guard's jerk limit makes up for the rest.
_BRAKE = 0.5
# A stop is looked at where the tool could have come to a region since the last look, in steps of at least this part.
_CLOSEST = 1.0 / 32.0
# A tool moves by no more than this between two looks, for each metre that lies between the ends of its way.
_DETOUR = 1.5
_ROUNDING_M = 1e-9


class JointRate:
    """Keeps the steps of the joints' targets below their velocity limits; a joint with a limit of zero stands still.

    Args:
        limits: of the joints.
    """

    name = "joint_rate"

    def __init__(self, limits: OffsetLimits) -> None:
        is_free = (limits.velocity > 0.0) & (limits.acceleration > 0.0) & (limits.jerk > 0.0)
        self._velocity = np.where(is_free, limits.velocity, 0.0)

    def apply(
        self, wanted: JointTarget, last: JointTarget, dt_s: float, scale: float
    ) -> tuple[JointTarget, Intervention | None]:
        """The target nearest to the wanted one, joint by joint, that keeps the limit. Arguments: see ToolLimit."""
        step, longest = wanted.positions - last.positions, dt_s * scale * self._velocity
        kept = np.minimum(np.maximum(step, -longest), longest)
        if (kept == step).all():
            return wanted, None
        joint = int((np.abs(step) - longest).argmax())
        reason = (
            f"joint {joint + 1} wanted at {abs(float(step[joint])) / dt_s:.2f} rad/s, "
            f"limit {scale * float(self._velocity[joint]):.2f} rad/s"
        )
        target = JointTarget(wanted.stamp_ns, last.positions + kept, kept / dt_s, wanted.gripper_opening)
        return target, Intervention(self.name, reason)


class JointStoppingRoom:
    """Sees whether the tool can still stop before forbidden regions, braking straight on in joint space.

    Args:
        regions: forbidden ones.
        limits: of the joints.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
    """

    def __init__(
        self, regions: Regions, limits: OffsetLimits, forward_kinematics: Callable[[FloatArray], FloatArray]
    ) -> None:
        self._regions, self._forward_kinematics = regions, forward_kinematics
        with np.errstate(divide="ignore"):
            self._seconds_per_speed = np.where(limits.acceleration > 0.0, 1.0 / (_BRAKE * limits.acceleration), 0.0)

    def hit(self, wanted: JointTarget, last: JointTarget) -> Intervention | None:
        """What the tool would come into, None if nothing. From inside it may come out.

        Args:
            wanted: for the tick that begins now.
            last: of the tick before.
        """
        way = 0.5 * self._stop_s(wanted.velocities) * wanted.velocities
        begin, end = self._position(wanted.positions), self._position(wanted.positions + way)
        pace = _DETOUR * math.dist(begin, end) + _ROUNDING_M
        part, p = 0.0, begin
        while True:
            depth, region = self._regions.nearest(p)
            if depth > _ROUNDING_M and depth > self._regions.nearest(self._position(last.positions))[0] + _ROUNDING_M:
                reason = f"joint targets lead the tcp {depth:.3f} m behind {region.what}, braking from here included"
                return Intervention(region.name, reason)
            if part >= 1.0:
                return None
            part = min(1.0, part + max(_CLOSEST, -depth / pace))
            p = end if part >= 1.0 else self._position(wanted.positions + part * way)

    def brake(self, last: JointTarget, stamp_ns: int, dt_s: float) -> JointTarget:
        """The next target of coming to rest, straight on."""
        stop_s = self._stop_s(last.velocities)
        velocities = last.velocities * max(0.0, 1.0 - dt_s / stop_s) if stop_s > 0.0 else np.zeros_like(last.velocities)
        return JointTarget(stamp_ns, last.positions + dt_s * velocities, velocities, last.gripper_opening)

    def _stop_s(self, velocities: FloatArray) -> float:
        return float((np.abs(velocities) * self._seconds_per_speed).max())

    def _position(self, positions: FloatArray) -> Vector:
        x, y, z = self._forward_kinematics(positions)[:3, 3].tolist()
        return x, y, z
