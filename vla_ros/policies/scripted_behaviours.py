"""The scripts of the scripted policy: reach, push and pick, put together from `scripted_moves`."""

from __future__ import annotations

import numpy as np

from vla_ros.instruction import Instruction
from vla_ros.observation.cube_pose import wrap_quarter_turn
from vla_ros.policies.clearance import choose_grip_yaw, choose_standoff
from vla_ros.policies.scripted_moves import (
    LOOK_S,
    Decision,
    Goal,
    Script,
    Situation,
    Step,
    above_block,
    find_block,
    go,
    move,
    rise,
    seconds_between,
    tool_down,
    tool_yaw,
    travel,
    wait,
)
from vla_ros.policies.scripted_parameters import ScriptedVisualParameters
from vla_ros.types import FloatArray

SCRIPTED_VERBS = ("reach", "push", "pick")
_DIRECTIONS = {
    "left": np.array([0.0, 1.0, 0.0]),
    "right": np.array([0.0, -1.0, 0.0]),
    "forward": np.array([1.0, 0.0, 0.0]),
    "backward": np.array([-1.0, 0.0, 0.0]),
}
# How long a hovering hand waits for a better view; and how long it closes, at least and at most.
_REFINE_S, _LEAST_CLOSING_S, _MOST_CLOSING_S = 0.8, 0.4, 3.0
# Fingers are still when the opening has stayed within this for so long.
_STILL_OPENING, _STILL_S = 0.01, 0.25
# A camera that sees the block on the table this long after the lift doesn't show the past.
_FRESH_S, _VIEWS_TO_DOUBT = 0.3, 4


def start_script(instruction: Instruction, parameters: ScriptedVisualParameters, situation: Situation) -> Script:
    """The script that does what an instruction says, from the first situation on."""
    if instruction.verb == "reach":
        return _reach(instruction.colour, parameters, situation)
    if instruction.verb == "push" and instruction.direction is not None:
        return _push(instruction.colour, instruction.direction, parameters, situation)
    return _pick(instruction.colour, parameters, situation)


def _reach(colour: str, parameters: ScriptedVisualParameters, situation: Situation) -> Script:
    height = np.array([0.0, 0.0, parameters.reach_m])
    yaw_rad = tool_yaw(situation.T_base_tcp)
    while True:
        situation = yield from find_block(colour, parameters, situation)
        situation = yield from travel(
            lambda s: tool_down(above_block(s.blocks[colour], parameters), yaw_rad), 1.0, f"going above {colour}",
            parameters, situation,
        )  # fmt: skip
        situation = yield from move(
            lambda s: Goal(tool_down(s.blocks[colour].p_base + height, yaw_rad), 1.0, parameters.near_speed_m_s),
            f"reaching for {colour}",
            situation,
        )
        reached = situation.blocks[colour].p_base
        while np.linalg.norm(situation.blocks[colour].p_base - reached) < parameters.moved_m:
            situation = yield Decision(None, f"done: at the {colour} block")


def _push(colour: str, direction: str, parameters: ScriptedVisualParameters, situation: Situation) -> Script:
    along = _DIRECTIONS[direction]
    situation = yield from find_block(colour, parameters, situation)
    start = situation.blocks[colour].p_base
    for _ in range(parameters.attempts):
        situation = yield from _push_once(colour, start, along, parameters, situation)
        way_m = float((situation.blocks[colour].p_base - start) @ along)
        while way_m >= parameters.least_push_m:
            situation = yield Decision(None, f"done: pushed {colour} {direction}")
    while True:
        situation = yield Decision(None, f"gave up on {colour} after {parameters.attempts} tries")


def _push_once(
    colour: str, start: FloatArray, along: FloatArray, parameters: ScriptedVisualParameters, situation: Situation
) -> Step:
    """Comes down behind the block, pushes it to where it belongs, goes back up and looks where it is."""
    # The bar of the closed fingers is wide along the tcp's y, so x points along the push or against it.
    yaw_rad = _nearest_half_turn(float(np.arctan2(along[1], along[0])), parameters.neutral_yaw_rad)

    def behind(s: Situation, height_m: float) -> FloatArray:
        p_block = s.blocks[colour].p_base
        standoff_m = choose_standoff(p_block, along, _others(s, colour), parameters.block_side_m)
        return tool_down(p_block - standoff_m * along + [0.0, 0.0, height_m], yaw_rad)

    situation = yield from travel(
        lambda s: behind(s, parameters.hover_m), 0.0, f"going behind {colour}", parameters, situation
    )
    low = behind(situation, 0.0)
    situation = yield from go(Goal(low, 0.0, parameters.near_speed_m_s), f"down behind {colour}", situation)
    contact_m = parameters.block_side_m / 2 + parameters.pusher_half_m
    p_low = low[:3, 3]
    way_m = float((start - p_low) @ along) + parameters.push_m - contact_m
    end = tool_down(p_low + way_m * along, yaw_rad)
    situation = yield from go(Goal(end, 0.0, parameters.near_speed_m_s), f"pushing {colour}", situation)
    back = tool_down(end[:3, 3] - 0.02 * along, yaw_rad)
    situation = yield from go(Goal(back, 0.0, parameters.near_speed_m_s), "drawing back", situation)
    situation = yield from rise(0.0, "rising", parameters, situation)
    here = tool_down(situation.T_base_tcp[:3, 3], yaw_rad)
    note = f"looking where {colour} is"
    return (yield from wait(Goal(here, 0.0, parameters.near_speed_m_s), LOOK_S, note, situation))


def _pick(colour: str, parameters: ScriptedVisualParameters, situation: Situation) -> Script:
    for attempt in range(parameters.attempts):
        situation = yield from find_block(colour, parameters, situation)
        situation = yield from _grasp(colour, parameters, situation)
        if _has_block(situation, parameters):
            up = situation.T_base_tcp[:3, 3] + [0.0, 0.0, parameters.lift_m]
            lifted = Goal(tool_down(up, tool_yaw(situation.T_base_tcp)), 0.0, parameters.lift_speed_m_s)
            situation = yield from go(lifted, f"lifting {colour}", situation)
            lift = situation
            while _has_block(situation, parameters) and not _is_on_table(situation, colour, lift):
                situation = yield Decision(None, f"done: holding {colour}")
        note = f"missed {colour} in try {attempt + 1}, again"
        situation = yield from rise(1.0, note, parameters, situation)
    while True:
        situation = yield Decision(None, f"gave up on {colour} after {parameters.attempts} tries")


def _grasp(colour: str, parameters: ScriptedVisualParameters, situation: Situation) -> Step:
    """Hovers until the block is known well, goes down with the fingers along two of its faces, and closes."""
    finger_m = parameters.finger_travel_m * parameters.grasp_opening + parameters.finger_half_m
    block, others = situation.blocks[colour], _others(situation, colour)
    preferred = choose_grip_yaw(
        block.p_base, block.yaw_rad, parameters.neutral_yaw_rad, finger_m, others, parameters.block_side_m
    )

    def grip_yaw(s: Situation) -> float:
        # The grip stays the chosen one: re-choosing at a tie would turn the hand to and fro by a quarter turn.
        return preferred + wrap_quarter_turn(s.blocks[colour].yaw_rad - preferred)

    def above(s: Situation) -> FloatArray:
        return tool_down(above_block(s.blocks[colour], parameters), grip_yaw(s))

    opening = parameters.grasp_opening
    situation = yield from travel(above, opening, f"going above {colour}", parameters, situation)
    hover = situation
    while seconds_between(hover, situation) < _REFINE_S:
        if situation.is_settled and situation.blocks[colour].sigma_m <= parameters.grasp_sigma_m:
            break
        situation = yield Decision(Goal(above(situation), opening, parameters.near_speed_m_s), f"looking at {colour}")
    grasp = tool_down(situation.blocks[colour].p_base, grip_yaw(situation))
    situation = yield from go(Goal(grasp, opening, parameters.near_speed_m_s), f"down to {colour}", situation)
    return (yield from _close(Goal(grasp, 0.0, parameters.near_speed_m_s), f"closing on {colour}", situation))


def _close(goal: Goal, note: str, situation: Situation) -> Step:
    """Closes until the fingers are still; without a measured opening, for as long as that may take."""
    begin = moved = situation
    while seconds_between(begin, situation) < _MOST_CLOSING_S:
        situation = yield Decision(goal, note)
        if (
            situation.opening is None
            or moved.opening is None
            or abs(situation.opening - moved.opening) > _STILL_OPENING
        ):
            moved = situation
        is_long = seconds_between(begin, situation) >= _LEAST_CLOSING_S
        if is_long and seconds_between(moved, situation) >= _STILL_S:
            break
    return situation


def _has_block(situation: Situation, parameters: ScriptedVisualParameters) -> bool:
    return situation.opening is None or situation.opening > parameters.missed_opening


def _is_on_table(situation: Situation, colour: str, lift: Situation) -> bool:
    """Whether cameras have seen the block standing on the table, and not once only, since the hand was lifted."""
    block = situation.blocks[colour]
    is_fresh = block.seen_ns > lift.stamp_ns + round(_FRESH_S * 1e9)
    return is_fresh and block.good_views >= lift.blocks[colour].good_views + _VIEWS_TO_DOUBT


def _others(situation: Situation, colour: str) -> list[FloatArray]:
    return [block.p_base for name, block in situation.blocks.items() if name != colour]


def _nearest_half_turn(angle_rad: float, wanted_rad: float) -> float:
    """The angle or its opposite, whichever is nearer to the wanted one."""
    return wanted_rad + float((angle_rad - wanted_rad + np.pi / 2) % np.pi - np.pi / 2)
