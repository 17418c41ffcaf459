"""What is done in a moment, verb by verb: the next of a task's steps, told from where things are and not from a memory.

Who lets go of the arm, moves an object or makes the fingers miss it, finds the expert doing what is then to be done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vla_ros.generation.field import Funnel, towards
from vla_ros.generation.grips import NEUTRAL_YAW_RAD, grip_yaw
from vla_ros.generation.moment import HALF_M, Aim, Moment
from vla_ros.instruction import Instruction, Verb
from vla_ros.sim.placement import AXES
from vla_ros.types import FloatArray

HOVER_M = 0.12  # Of the tool over the table: what it holds then passes over what stands there.
REACH_M = 0.05  # Of the tool over the middle of what is reached for.
LIFT_M = 0.16  # Of the tool over the table when something is picked.
# The bowl's rim over the table, and how far from its middle something has to be to be in it.
BOWL_RIM_M, BOWL_RADIUS_M = 0.04, 0.05
_OVER_BOWL_M = 0.02  # From the rim up to the tool, to let go.
_RETREAT_M = 0.09  # Up from where something was let go.
_TALLEST_M = 0.30
_GRASP = Funnel(HOVER_M)
_STILL = np.zeros(3)
# How well the tool has to stand, along its axes, for the fingers to close.
_GRASP_M, _GRASP_RAD = np.array([0.006, 0.008, 0.006]), math.radians(6.0)
# How far an object that is put down may be from its place for the fingers to open.
_LET_GO_M, _LET_GO_UP_M = 0.006, 0.005
# What isn't ready keeps the tool up as so many metres would: of yaw and tilt per radian, of fingers not yet open.
_TURNED_M_RAD, _TURNED_RAD, _UNOPENED_M = 0.06, math.radians(4.0), 0.06
_PUSH_M_S = 0.08
_BAR_M = 0.011  # Half the closed fingers' thickness along the push.
_BEHIND_M, _BESIDE_M = 0.02, 0.008  # Room behind an object for coming down; off the line by which it is still pushed.
# Nothing is pushed farther than here: (x from, x to), (y from, y to) in base.
PUSH_AREA_M = ((0.29, 0.66), (-0.31, 0.31))


def reach(moment: Moment, instruction: Instruction) -> Aim:
    """Over the object, low; and stay."""
    goal = moment.place(instruction.thing.name) + np.array([0.0, 0.0, REACH_M])
    velocity = replace(_GRASP, inner_m=0.012, outer_m=0.05).velocity(moment.p_base, goal)
    return Aim(velocity, NEUTRAL_YAW_RAD, 1.0)


def pick(moment: Moment, instruction: Instruction) -> Aim:
    """Around the object, close, up; and stay."""
    name = instruction.thing.name
    if moment.is_held(name):
        z = float(np.clip(moment.p_base[2], moment.table_m + LIFT_M, _TALLEST_M))
        return Aim(_up_to(moment, z), moment.yaw_rad, 0.0)
    return _grasp(moment, name)


def place(moment: Moment, instruction: Instruction) -> Aim:
    """Pick, over the bowl, open, up; and stay."""
    name, bowl = instruction.thing.name, _destination(instruction)
    p_object, p_bowl = moment.place(name), moment.place(bowl)
    rim_z = moment.table_m + BOWL_RIM_M
    is_over = math.dist(p_object[:2], p_bowl[:2]) < BOWL_RADIUS_M
    if moment.is_held(name):
        hover_z = rim_z + _OVER_BOWL_M + 0.06
        offset = p_object - moment.p_base
        goal = np.array([*(p_bowl - offset)[:2], rim_z + _OVER_BOWL_M])
        is_there = math.dist(p_object[:2], p_bowl[:2]) < 0.012 and moment.p_base[2] < goal[2] + 0.008
        velocity = Funnel(hover_z, 0.012, 0.06).velocity(moment.p_base, goal)
        return Aim(_STILL if is_there else velocity, moment.yaw_rad, 1.0 if is_there else 0.0)
    if is_over and (p_object[2] < rim_z or (moment.is_between(name) and not moment.is_closing)):
        return _let_go(moment, rim_z + _OVER_BOWL_M)
    return _grasp(moment, name)


def stack(moment: Moment, instruction: Instruction) -> Aim:
    """Pick, over the other, down, open, up; and stay."""
    name, under = instruction.thing.name, _destination(instruction)
    p_object, top = moment.place(name), moment.place(under) + np.array([0.0, 0.0, 2.0 * HALF_M])
    off_m, high_m = math.dist(p_object[:2], top[:2]), float(p_object[2] - top[2])
    if moment.is_held(name):
        offset = p_object - moment.p_base
        goal = top - offset + np.array([0.0, 0.0, 0.001])
        is_there = off_m < _LET_GO_M and high_m < _LET_GO_UP_M
        velocity = Funnel(float(top[2]) + 0.06, 0.005, 0.03).velocity(moment.p_base, goal)
        return Aim(_STILL if is_there else velocity, moment.yaw_rad, 1.0 if is_there else 0.0)
    if off_m < HALF_M and abs(high_m) < 0.01:
        return _let_go(moment, float(p_object[2]))
    return _grasp(moment, name)


def push(moment: Moment, instruction: Instruction) -> Aim:
    """Behind the object, down, and along, up to the end of the table's middle.

    How far it was pushed isn't seen in an image, so nothing here ends with that: whoever judges ends the episode.
    """
    if instruction.direction is None:
        raise ValueError(f"{instruction} has no direction to push")
    along = np.array(AXES[instruction.direction])
    p_object = moment.place(instruction.thing.name)
    # The bar of the closed fingers is wide along the tcp's y, so x points along the push or against it.
    yaw = _half_turn(math.atan2(along[1], along[0]))
    turned_m = _turned(moment, yaw)
    contact_m = _depth(moment.objects[instruction.thing.name], along) + _BAR_M
    way = moment.p_base[:2] - p_object[:2]
    behind_m, beside = -float(way @ along), way + float(-way @ along) * along
    beside_m = float(np.linalg.norm(beside))
    low_z = float(p_object[2])
    in_lane = contact_m - 0.012 < behind_m < contact_m + _BEHIND_M + 0.025
    is_low = moment.p_base[2] < low_z + 0.012
    if in_lane and is_low and beside_m < _BESIDE_M and turned_m == 0.0 and not moment.opening > 0.15:
        if _is_at_end(p_object, along):
            return Aim(_STILL, yaw, 0.0)
        velocity = np.append(_PUSH_M_S * along - 4.0 * beside, 2.0 * (low_z - moment.p_base[2]))
        return Aim(velocity, yaw, 0.0)
    # Anywhere in the lane will do to come down, its middle is best.
    off_m = max(0.0, abs(behind_m - contact_m - _BEHIND_M) - 0.010) + 2.0 * turned_m + 0.06 * (moment.opening > 0.15)
    goal = np.append(p_object[:2] - (contact_m + _BEHIND_M) * along, low_z)
    funnel = Funnel(moment.table_m + HOVER_M, 0.006, 0.02)
    return Aim(funnel.velocity(moment.p_base, goal, off_m if off_m > 0.0 else 0.0), yaw, 0.0)


BEHAVIOURS: dict[Verb, Callable[[Moment, Instruction], Aim]] = {
    "reach": reach,
    "push": push,
    "pick": pick,
    "place": place,
    "stack": stack,
}


def _grasp(moment: Moment, name: str) -> Aim:
    """Around an object, and close."""
    p_object = moment.place(name)
    if moment.is_closing and moment.is_between(name) and moment.opening > moment.width:
        return Aim(_STILL, moment.yaw_rad, 0.0)
    yaw = grip_yaw(moment, name)
    local = moment.T_base_tcp[:3, :3].T @ (p_object - moment.p_base)
    is_around = bool((np.abs(local) < _GRASP_M).all()) and _off_rad(moment, yaw) < _GRASP_RAD
    if is_around and moment.opening > moment.width + 0.1:
        return Aim(0.5 * _GRASP.velocity(moment.p_base, p_object), yaw, 0.0)
    unopened_m = _UNOPENED_M * max(0.0, 0.85 - moment.opening)
    velocity = _GRASP.velocity(moment.p_base, p_object, _turned(moment, yaw) + unopened_m)
    return Aim(velocity, yaw, 1.0)


def _let_go(moment: Moment, z: float) -> Aim:
    """Fingers open, then straight up from a height."""
    if moment.opening < moment.width + 0.15:
        return Aim(_STILL, moment.yaw_rad, 1.0)
    return Aim(_up_to(moment, float(np.clip(moment.p_base[2], z + _RETREAT_M, _TALLEST_M))), moment.yaw_rad, 1.0)


def _up_to(moment: Moment, z: float) -> FloatArray:
    return towards(moment.p_base, np.array([*moment.p_base[:2], z]), 0.2)


def _destination(instruction: Instruction) -> str:
    if instruction.destination is None:
        raise ValueError(f"{instruction} has no destination")
    return instruction.destination.name


def _off_rad(moment: Moment, yaw_rad: float) -> float:
    return abs((moment.yaw_rad - yaw_rad + math.pi) % (2.0 * math.pi) - math.pi) + moment.tilt_rad


def _turned(moment: Moment, yaw_rad: float) -> float:
    """How far the tool is turned away from a yaw, and tilted, as a distance."""
    return _TURNED_M_RAD * max(0.0, _off_rad(moment, yaw_rad) - _TURNED_RAD)


def _half_turn(yaw_rad: float) -> float:
    """The yaw or its opposite, whichever is nearer to the neutral one; of a quarter turn the negative."""
    return NEUTRAL_YAW_RAD + (yaw_rad - NEUTRAL_YAW_RAD + math.pi / 2.0 - 1e-6) % math.pi - math.pi / 2.0 + 1e-6


def _depth(T_base_object: FloatArray, along: FloatArray) -> float:
    """From an object's middle to its farthest point against a direction; a cylinder is taken for a block."""
    axes = np.abs(along @ T_base_object[:2, :3])
    return HALF_M * float(min(axes.sum(), math.sqrt(2.0)))


def _is_at_end(p_object: FloatArray, along: FloatArray) -> bool:
    for value, sense, (low, high) in zip(p_object[:2], along, PUSH_AREA_M, strict=True):
        if (sense > 0.0 and value > high) or (sense < 0.0 and value < low):
            return True
    return False
