"""Which yaw the tool takes to an object: its faces between the fingers, and room for these between its neighbours."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from vla_ros.generation.moment import HALF_M, Moment
from vla_ros.instruction import BOWL
from vla_ros.policies.clearance import footprint_clearance
from vla_ros.types import FloatArray

BOWL_M = 0.062  # The bowl's outer radius.
# A finger's footprint along the tcp's x and y, and its middle's distance from the tcp when open.
_FINGER_HALF_M, _FINGER_M = np.array([0.013, 0.013]), 0.05
_ENOUGH_M = 0.005
_FARTHEST_RAD = math.radians(100.0)
# A wish of so many radians for every metre of room that is missing.
_CRAMPED_RAD_M = 300.0
# How much the present yaw counts against the neutral one: a turn that has begun isn't reversed.
_PRESENT = 0.75
NEUTRAL_YAW_RAD = 0.0


def grip_yaw(moment: Moment, name: str) -> float:
    """The tool's yaw for grasping an object: the least turn from between the present yaw and the neutral one."""
    is_round = name.startswith("cylinder")
    step_rad = math.radians(30.0) if is_round else math.pi / 2.0
    first = NEUTRAL_YAW_RAD if is_round else face_yaw(moment.objects[name])
    first -= step_rad * round((first - NEUTRAL_YAW_RAD) / step_rad)
    candidates = [yaw for k in range(-4, 5) if abs(yaw := first + k * step_rad) <= _FARTHEST_RAD]
    x, y = moment.place(name)[:2].tolist()
    near = tuple(
        (radius_m(other), *T[:2, 3].tolist())
        for other, T in moment.objects.items()
        if other != name and math.dist(T[:2, 3], (x, y)) < 0.16
    )
    wish_rad = NEUTRAL_YAW_RAD + _PRESENT * (0.0 if is_round else moment.yaw_rad - NEUTRAL_YAW_RAD)

    candidates.sort(key=lambda yaw_rad: abs(yaw_rad - wish_rad))
    if not near:
        return candidates[0]
    best, least = candidates[0], math.inf
    for yaw_rad in candidates:
        wish = abs(yaw_rad - wish_rad)
        if wish >= least:
            break
        cost = wish + _CRAMPED_RAD_M * max(0.0, _ENOUGH_M - _room(x, y, yaw_rad, near))
        if cost < least:
            best, least = yaw_rad, cost
    return best


def face_yaw(T_base_object: FloatArray) -> float:
    """Yaw of one of a block's faces that stand upright."""
    lying = int(np.argmax(np.abs(T_base_object[2, :3])))
    axis = T_base_object[:2, (lying + 1) % 3]
    return math.atan2(axis[1], axis[0])


@lru_cache(maxsize=256)  # What is followed in thought stands still meanwhile.
def _room(x: float, y: float, yaw_rad: float, others: tuple[tuple[float, float, float], ...]) -> float:
    """Gap between the fingers around a place and discs, each a radius and its centre, m."""
    across = _FINGER_M * np.array([-math.sin(yaw_rad), math.cos(yaw_rad)])
    sides = [np.array([x, y]) + side * across for side in (-1.0, 1.0)]
    return min(
        footprint_clearance(side, yaw_rad, _FINGER_HALF_M, [np.array(centre)], radius_m)
        for side in sides
        for radius_m, *centre in others
    )


def radius_m(name: str) -> float:
    """Of the disc that something covers of the table, nearly."""
    return BOWL_M if name == BOWL.name else 1.3 * HALF_M
