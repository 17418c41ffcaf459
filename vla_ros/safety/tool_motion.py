"""What a limit of the tool's motion is: motion in, permitted motion and a named intervention out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.safety.part_rate import PartMotion
from vla_ros.safety.stopping import Vector
from vla_ros.types import FloatArray, Intervention

# Sine of half a radian: below, the arc sine of a turn's sine is exact and cheap.
_SMALL_SINE = 0.479


@dataclass(frozen=True)
class ToolMotion:
    """Pose and motion of the tcp in base, at the end of a tick.

    What was let through has the differences of its poses: twist and acceleration are those of the last ticks.

    Attributes:
        T_base_tcp: (4, 4).
        twist: (6,) linear m/s, angular rad/s, in base axes.
        acceleration: (6,) its derivative.
        parts: translation and rotation of what was let through: the same, and what is known of them.
    """

    T_base_tcp: FloatArray
    twist: FloatArray
    acceleration: FloatArray
    parts: tuple[PartMotion, PartMotion] | None = None


def at_rest(T_base_tcp: FloatArray) -> ToolMotion:
    """A tool that stands still."""
    return ToolMotion(T_base_tcp, np.zeros(6), np.zeros(6))


class ToolLimit(Protocol):
    """A limit of the tool's motion."""

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


def turn_between(T_from: FloatArray, T_to: FloatArray) -> Vector:
    """Rotation vector in base axes, rad, that turns one pose's rotation into the other's; in plain floats."""
    (f00, f01, f02, _), (f10, f11, f12, _), (f20, f21, f22, _), _ = T_from.tolist()
    (t00, t01, t02, _), (t10, t11, t12, _), (t20, t21, t22, _), _ = T_to.tolist()
    x = 0.5 * (t20 * f10 + t21 * f11 + t22 * f12 - t10 * f20 - t11 * f21 - t12 * f22)
    y = 0.5 * (t00 * f20 + t01 * f21 + t02 * f22 - t20 * f00 - t21 * f01 - t22 * f02)
    z = 0.5 * (t10 * f00 + t11 * f01 + t12 * f02 - t00 * f10 - t01 * f11 - t02 * f12)
    trace = t00 * f00 + t01 * f01 + t02 * f02 + t10 * f10 + t11 * f11 + t12 * f12 + t20 * f20 + t21 * f21 + t22 * f22
    sine = math.sqrt(x * x + y * y + z * z)
    if trace > 1.0 and sine < _SMALL_SINE:
        scale = math.asin(sine) / sine if sine > 1e-9 else 1.0
        return x * scale, y * scale, z * scale
    x, y, z = rotations.matrix_to_rotvec(T_to[:3, :3] @ T_from[:3, :3].T).tolist()
    return x, y, z
