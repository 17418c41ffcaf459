"""What the scripts are made of: looking for a block, travelling above the others, moving until the arm rests.

A script is a coroutine: it is sent a `Situation` for every observation and yields a `Decision`. It knows nothing of
images, chunks or clocks beyond the situation's stamp.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np

from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.observation.block_tracker import BlockEstimate
from vla_ros.policies.scripted_parameters import ScriptedVisualParameters
from vla_ros.types import FloatArray

_TOOL_DOWN = np.diag([1.0, -1.0, -1.0])
# How long one place is given to see a block from it.
LOOK_S = 0.5


@dataclass(frozen=True)
class Goal:
    """A place to come to rest at, tool down.

    Attributes:
        T_base_tcp: (4, 4).
        opening: gripper opening to command on the way.
        speed_m_s: peak speed.
    """

    T_base_tcp: FloatArray
    opening: float
    speed_m_s: float


@dataclass(frozen=True)
class Situation:
    """What a script goes by.

    Attributes:
        stamp_ns: of the observation.
        T_base_tcp: (4, 4) measured.
        opening: measured gripper opening, None while unknown.
        blocks: estimates by colour.
        is_settled: whether the arm rests at the goal of the last decision.
    """

    stamp_ns: int
    T_base_tcp: FloatArray
    opening: float | None
    blocks: Mapping[str, BlockEstimate]
    is_settled: bool


@dataclass(frozen=True)
class Decision:
    """Where to go, or None to be idle, and what for."""

    goal: Goal | None
    note: str


Script = Generator[Decision, Situation, None]
Step = Generator[Decision, Situation, Situation]


def tool_down(p_base: FloatArray, yaw_rad: float) -> FloatArray:
    """(4, 4) pose with the tcp's z downwards and its x at a yaw about base z."""
    return make_pose(p_base, rotvec_to_matrix(np.array([0.0, 0.0, yaw_rad])) @ _TOOL_DOWN)


def find_block(colour: str, parameters: ScriptedVisualParameters, situation: Situation) -> Step:
    """Looks from where the arm is, then from above, then waits idly until the block is seen."""
    begin = situation
    while colour not in situation.blocks and seconds_between(begin, situation) < LOOK_S:
        situation = yield Decision(None, f"looking for the {colour} block")
    look = tool_down(np.array(parameters.look_position_m), parameters.neutral_yaw_rad)
    note = f"going up to look for {colour}"
    is_there = False
    while colour not in situation.blocks and not is_there:
        situation = yield Decision(Goal(look, 1.0, parameters.transit_speed_m_s), note)
        is_there = situation.is_settled
    while colour not in situation.blocks:
        situation = yield Decision(None, f"the {colour} block isn't seen by any camera")
    return situation


def travel(
    pose: Callable[[Situation], FloatArray],
    opening: float,
    note: str,
    parameters: ScriptedVisualParameters,
    situation: Situation,
) -> Step:
    """To a high place, straight up first where the arm is low, so that nothing on the way is knocked over."""
    goal_height_m = float(pose(situation)[2, 3])
    p_tcp = situation.T_base_tcp[:3, 3]
    is_low = p_tcp[2] < goal_height_m - 0.03
    if is_low and np.linalg.norm(pose(situation)[:2, 3] - p_tcp[:2]) > 0.01:
        situation = yield from rise(opening, note, parameters, situation)
    return (yield from move(lambda s: Goal(pose(s), opening, parameters.transit_speed_m_s), note, situation))


def rise(opening: float, note: str, parameters: ScriptedVisualParameters, situation: Situation) -> Step:
    """Straight up to the height of hovering; where the arm is higher already it stays."""
    p_base = situation.T_base_tcp[:3, 3].copy()
    p_base[2] = max(p_base[2], parameters.table_height_m + parameters.block_side_m / 2 + parameters.hover_m)
    goal = Goal(tool_down(p_base, tool_yaw(situation.T_base_tcp)), opening, parameters.transit_speed_m_s)
    return (yield from go(goal, note, situation))


def move(goal: Callable[[Situation], Goal], note: str, situation: Situation) -> Step:
    """To a goal that may follow what is seen, until the arm rests there."""
    while True:
        situation = yield Decision(goal(situation), note)
        if situation.is_settled:
            return situation


def go(goal: Goal, note: str, situation: Situation) -> Step:
    """To a goal that stands."""
    return (yield from move(lambda s: goal, note, situation))


def wait(goal: Goal, duration_s: float, note: str, situation: Situation) -> Step:
    """Stays at a goal for a while."""
    begin = situation
    while seconds_between(begin, situation) < duration_s:
        situation = yield Decision(goal, note)
    return situation


def seconds_between(earlier: Situation, later: Situation) -> float:
    return (later.stamp_ns - earlier.stamp_ns) * 1e-9


def above_block(block: BlockEstimate, parameters: ScriptedVisualParameters) -> FloatArray:
    return np.asarray(block.p_base + np.array([0.0, 0.0, parameters.hover_m]))


def tool_yaw(T_base_tcp: FloatArray) -> float:
    return float(np.arctan2(T_base_tcp[1, 0], T_base_tcp[0, 0]))
