"""Where the things of a varied scene lie: apart from each other, in reach, and out of the way of a push."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.instruction import Direction
from vla_ros.sim.placement import AXES, VARIED_AREA, TaskArea
from vla_ros.types import FloatArray

# Least distances between centres.
THING_DISTANCE_M, BOWL_DISTANCE_M = 0.085, 0.11
# A push needs the way from where the closed fingers come down to where the thing ends, and no centre near it.
PUSH_BEHIND_M, PUSH_BEYOND_M = 0.09, 0.09
PUSH_CLEARANCE_M, PUSH_BOWL_CLEARANCE_M = 0.065, 0.095
# How far past the task area the ends of that way may lie, the bowl's centre may not come, and distractors may lie.
PUSH_MARGIN_M, _BOWL_MARGIN_M, DISTRACTOR_MARGIN_M = 0.03, -0.02, 0.05
_TRIES_EACH, _TRIES = 60, 10_000


@dataclass(frozen=True)
class Claim:
    """What has to be placed.

    Attributes:
        kind: which distances it keeps, and how far out it may lie.
        pushed: the way it has to be free to go.
    """

    kind: Literal["thing", "bowl", "distractor"]
    pushed: Direction | None = None


def draw_layout(rng: np.random.Generator, claims: Sequence[Claim]) -> FloatArray:
    """Places things one after the other, each uniformly over what the ones before leave free.

    Args:
        rng: the randomness.
        claims: what to place; one that is pushed comes first.

    Returns:
        (n, 3): x and y in base, m, and yaw, rad.
    """
    for _ in range(_TRIES):
        placed: list[FloatArray] = []
        for claim in claims:
            found = _place(rng, claim, claims, placed)
            if found is None:
                break
            placed.append(found)
        else:
            return np.column_stack([np.array(placed), rng.uniform(-np.pi, np.pi, size=len(placed))])
    raise RuntimeError(f"no room for {len(claims)} things")


def push_ends(p_base: FloatArray, direction: Direction) -> tuple[FloatArray, FloatArray]:
    """Where the way of a push begins and ends, (2,) each, for a thing at `p_base` (2,)."""
    along = np.array(AXES[direction])
    return p_base - PUSH_BEHIND_M * along, p_base + PUSH_BEYOND_M * along


def has_free_way(p: FloatArray, direction: Direction, others: Sequence[tuple[FloatArray, Claim]]) -> bool:
    """Whether a thing could be pushed: the way is within reach, and nothing lies in it.

    Args:
        p: (2,) where it lies.
        direction: the push's.
        others: (2,) where the others lie, and what they claim.
    """
    low, high = _bounds(VARIED_AREA, PUSH_MARGIN_M)
    ends = np.array(push_ends(p, direction))
    is_within = bool((ends >= low).all() and (ends <= high).all())
    return is_within and all(_is_apart(q, claim, p, Claim("thing", direction)) for q, claim in others)


def _place(
    rng: np.random.Generator, claim: Claim, claims: Sequence[Claim], placed: Sequence[FloatArray]
) -> FloatArray | None:
    margin_m = {"thing": 0.0, "bowl": _BOWL_MARGIN_M, "distractor": DISTRACTOR_MARGIN_M}[claim.kind]
    low, high = _bounds(VARIED_AREA, margin_m)
    if claim.pushed is not None:
        ends = np.array(push_ends(np.zeros(2), claim.pushed))
        wide_low, wide_high = _bounds(VARIED_AREA, PUSH_MARGIN_M)
        low = np.maximum(low, wide_low - ends.min(axis=0))
        high = np.minimum(high, wide_high - ends.max(axis=0))
    for _ in range(_TRIES_EACH):
        p = rng.uniform(low, high)
        if all(_is_apart(p, claim, q, other) for q, other in zip(placed, claims, strict=False)):
            return p
    return None


def _is_apart(p: FloatArray, claim: Claim, q: FloatArray, other: Claim) -> bool:
    """Whether p is far enough from q, which was placed before."""
    is_bowl = "bowl" in (claim.kind, other.kind)
    if np.linalg.norm(p - q) < (BOWL_DISTANCE_M if is_bowl else THING_DISTANCE_M):
        return False
    if other.pushed is None:
        return True
    begin, end = push_ends(q, other.pushed)
    way = end - begin
    nearest = begin + way * np.clip((p - begin) @ way / (way @ way), 0.0, 1.0)
    clearance_m = PUSH_BOWL_CLEARANCE_M if is_bowl else PUSH_CLEARANCE_M
    return bool(np.linalg.norm(p - nearest) >= clearance_m)


def _bounds(area: TaskArea, margin_m: float) -> tuple[FloatArray, FloatArray]:
    low, high = np.array([area.x_m, area.y_m]).T
    return low - margin_m, high + margin_m
