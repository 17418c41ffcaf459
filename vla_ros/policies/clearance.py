"""Where the fingers fit between blocks: the tool's yaw for a grasp, and the place behind a block to push it from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_ros.types import FloatArray

# Half sizes of a finger's footprint along the tcp's x and y, the larger of our two grippers.
_FINGER_HALF_M = np.array([0.013, 0.014])
# Closed, the two fingers are one bar across x.
_BAR_HALF_M = np.array([0.013, 0.028])
_ENOUGH_M = 0.004


def footprint_clearance(
    centre: FloatArray, yaw_rad: float, half_m: FloatArray, others: Sequence[FloatArray], radius_m: float
) -> float:
    """Gap between a turned rectangle and the nearest of some discs, m, negative if they overlap, inf without discs.

    Args:
        centre: (2,) of the rectangle.
        yaw_rad: of its first side.
        half_m: (2,) half lengths.
        others: (2,) centres of the discs.
        radius_m: of each.
    """
    if not others:
        return float("inf")
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    local = (np.stack(others) - centre) @ np.array([[cosine, -sine], [sine, cosine]])
    outside = np.maximum(np.abs(local) - half_m, 0.0)
    return float(np.min(np.linalg.norm(outside, axis=1)) - radius_m)


def choose_grip_yaw(
    p_block: FloatArray,
    block_yaw_rad: float,
    neutral_yaw_rad: float,
    finger_m: float,
    others: Sequence[FloatArray],
    side_m: float,
) -> float:
    """Yaw of the tcp's x that sets the fingers (along y) on two faces of a block.

    Of the two grips within a quarter turn of the neutral yaw it takes the nearer one, unless that is cramped and the
    other has more room.

    Args:
        p_block: (2,) or (3,) centre of the block in base.
        block_yaw_rad: its yaw, any of the equivalent ones.
        neutral_yaw_rad: yaw that the wrist likes best.
        finger_m: distance of an opened finger's middle from the tcp.
        others: centres of the other blocks.
        side_m: edge of a block.
    """
    turn = (block_yaw_rad - neutral_yaw_rad + np.pi / 4) % (np.pi / 2) - np.pi / 4
    near = neutral_yaw_rad + turn
    far = near - np.copysign(np.pi / 2, turn)

    def room(yaw_rad: float) -> float:
        across = finger_m * np.array([-np.sin(yaw_rad), np.cos(yaw_rad)])
        centres = [other[:2] for other in others]
        return min(
            footprint_clearance(p_block[:2] + side * across, yaw_rad, _FINGER_HALF_M, centres, side_m / np.sqrt(2.0))
            for side in (-1.0, 1.0)
        )

    return float(near if room(near) >= min(_ENOUGH_M, room(far)) else far)


def choose_standoff(p_block: FloatArray, direction: FloatArray, others: Sequence[FloatArray], side_m: float) -> float:
    """How far behind a block's centre the closed fingers come down before they push along a direction, m.

    As far as is handy, nearer or farther where another block is in the way.
    """
    least = side_m / np.sqrt(2.0) + float(_BAR_HALF_M[0]) + 0.004
    candidates = least + np.array([0.012, 0.008, 0.004, 0.0, 0.02, 0.03])
    yaw_rad = float(np.arctan2(direction[1], direction[0]))
    centres = [other[:2] for other in others]

    def room(standoff_m: float) -> float:
        place = p_block[:2] - standoff_m * direction[:2]
        return footprint_clearance(place, yaw_rad, _BAR_HALF_M, centres, side_m / np.sqrt(2.0))

    rooms = [min(room(float(candidate)), _ENOUGH_M) for candidate in candidates]
    return float(candidates[int(np.argmax(rooms))])
