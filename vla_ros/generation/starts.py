"""Where an episode begins: at home, somewhere on the expert's own way, near what is meant, or anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vla_ros.generation.expert import STEP_S, Expert, Travel
from vla_ros.generation.grips import radius_m
from vla_ros.generation.moment import HALF_M, Moment, tool_down
from vla_ros.generation.posture import find_posture
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.policies.clearance import footprint_clearance
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

StartKind = Literal["home", "on_the_way", "near", "anywhere"]
KINDS: tuple[StartKind, ...] = ("home", "on_the_way", "near", "anywhere")
SHARES = (0.15, 0.5, 0.22, 0.13)
# The way that an expert is followed in thought, and how long it is followed past its end.
_WAY_S, _AFTER_S, _STILL_M_S = 14.0, 0.6, 0.004
_NOISE_M, _YAW_RAD, _TILT_RAD = 0.012, math.radians(10.0), math.radians(2.5)
_WILD_YAW_RAD = math.radians(70.0)
_LOW_M = 0.012  # Least height of a tool that nobody has led there.
_AREA_M = ((0.30, 0.64), (-0.30, 0.30))
_TRIES = 20
_FINGER_HALF_M, _BAR_HALF_M = np.array([0.015, 0.015]), np.array([0.015, 0.03])
_FINGER_REACH_M = 0.012  # How far fingers reach below the tcp.


@dataclass(frozen=True)
class Start:
    """Where things are put before an episode begins.

    Attributes:
        kind: how it was drawn.
        positions: (n,) rad of the arm.
        opening: of the gripper.
        commanded_opening: that it is told.
        moved: things that aren't where the scene has them: name -> T_base_object.
    """

    kind: StartKind
    positions: FloatArray
    opening: float
    commanded_opening: float
    moved: Mapping[str, FloatArray]


def draw_start(rng: np.random.Generator, kind: StartKind, expert: Expert, model: RobotModel, home: Moment) -> Start:
    """Draws one; home where none can be found that touches nothing.

    Args:
        rng: the randomness.
        kind: which.
        expert: who is to do the task.
        model: of the arm.
        home: the moment after the scene's reset.
    """
    at_home = Start("home", model.home, 1.0, 1.0, {})
    if kind == "home":
        return at_home
    way = _way(expert, home) if kind == "on_the_way" else []
    for _ in range(_TRIES):
        if kind == "on_the_way":
            moment = _disturbed(rng, way[int(rng.integers(len(way)))].moment, expert)
        elif kind == "near":
            moment = _near(rng, home, expert)
        else:
            moment = _anywhere(rng, home)
        moment = _raised(moment, expert)
        positions = find_posture(model, moment.T_base_tcp, model.home)
        if positions is not None:
            moved = {name: T for name, T in moment.objects.items() if T is not home.objects[name]}
            return Start(kind, positions, moment.opening, moment.commanded_opening, moved)
    return at_home


def _way(expert: Expert, home: Moment) -> list[Travel]:
    """What the expert would do from home on, and a little of its rest at the end."""
    way, still_s = [], 0.0
    for travel, _ in expert.foresee(Travel(home, np.zeros(6)), _WAY_S):
        way.append(travel)
        is_still = float(np.linalg.norm(travel.twist[:3])) < _STILL_M_S and travel.moment.opening in (
            0.0,
            1.0,
            expert.width,
        )
        still_s = still_s + STEP_S if is_still else 0.0
        if still_s > _AFTER_S:
            break
    return way


def _disturbed(rng: np.random.Generator, moment: Moment, expert: Expert) -> Moment:
    """As on the way, but a little off; what is held goes along, now and then the fingers are wrong."""
    name = expert.instruction.thing.name
    noise_m = _NOISE_M * rng.uniform(0.0, 1.5)
    T = _moved_tool(moment.T_base_tcp, noise_m * rng.standard_normal(3), _YAW_RAD * rng.standard_normal(), rng)
    if moment.is_held(name):
        T[2, 3] = max(T[2, 3], moment.T_base_tcp[2, 3] - 0.004)
        held = T @ np.linalg.inv(moment.T_base_tcp) @ moment.objects[name]
        return replace(moment, T_base_tcp=T, opening=expert.width, objects={**moment.objects, name: held})
    commanded = moment.commanded_opening if rng.random() < 0.85 else 1.0 - round(moment.commanded_opening)
    opening = moment.opening if commanded == moment.commanded_opening else float(commanded)
    return replace(moment, T_base_tcp=T, opening=opening, commanded_opening=float(commanded))


def _near(rng: np.random.Generator, home: Moment, expert: Expert) -> Moment:
    """Beside, above or around what is named, as after a miss."""
    under = expert.instruction.destination
    name = expert.instruction.thing.name if under is None or rng.random() < 0.75 else under.name
    p = home.place(name) + rng.uniform([-0.07, -0.07, -0.01], [0.07, 0.07, 0.11])
    opening = float(rng.random() < 0.6)
    yaw_rad = float(rng.normal(0.0, math.radians(30.0)))
    return replace(home, T_base_tcp=_tilted(tool_down(p, yaw_rad), rng), opening=opening, commanded_opening=opening)


def _anywhere(rng: np.random.Generator, home: Moment) -> Moment:
    p = np.array([*(rng.uniform(low, high) for low, high in _AREA_M), home.table_m + 0.01 + 0.34 * rng.random() ** 1.5])
    opening = float(rng.random() < 0.5)
    T = _tilted(tool_down(p, float(rng.uniform(-_WILD_YAW_RAD, _WILD_YAW_RAD))), rng)
    return replace(home, T_base_tcp=T, opening=opening, commanded_opening=opening)


def _moved_tool(T: FloatArray, offset: FloatArray, yaw_rad: float, rng: np.random.Generator) -> FloatArray:
    moved = T.copy()
    moved[:3, 3] += offset
    moved[:3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, yaw_rad])) @ T[:3, :3]
    return _tilted(moved, rng)


def _tilted(T: FloatArray, rng: np.random.Generator) -> FloatArray:
    tilted = T.copy()
    tilted[:3, :3] = T[:3, :3] @ rotvec_to_matrix(np.array([*(_TILT_RAD * rng.standard_normal(2)), 0.0]))
    return tilted


def _raised(moment: Moment, expert: Expert) -> Moment:
    """Up as far as it takes that neither the fingers nor what they hold is inside of something."""
    T = moment.T_base_tcp.copy()
    name = expert.instruction.thing.name
    is_held = moment.is_held(name)
    lowest_m = moment.table_m + (HALF_M + 0.001 if is_held else _LOW_M)
    held_drop_m = float(moment.T_base_tcp[2, 3] - moment.place(name)[2]) if is_held else 0.0
    for other, T_object in moment.objects.items():
        if other == name and (is_held or (moment.is_between(name) and moment.opening > moment.width + 0.08)):
            continue
        half_m = radius_m(other)
        top_m = float(T_object[2, 3]) + HALF_M
        if is_held and math.dist(T_object[:2, 3], moment.place(name)[:2]) < half_m + 1.4 * HALF_M:
            is_own_place = expert.instruction.destination is not None and expert.instruction.destination.name == other
            lowest_m = max(lowest_m, top_m + HALF_M + held_drop_m + (0.002 if is_own_place else 0.01))
        if _is_inside(moment, T_object[:2, 3], half_m):
            lowest_m = max(lowest_m, top_m + _FINGER_REACH_M + 0.003)
    up_m = lowest_m - float(T[2, 3])
    if up_m <= 0.0:
        return moment
    T[2, 3] += up_m
    objects = moment.objects
    if is_held:
        held = objects[name].copy()
        held[2, 3] += up_m
        objects = {**objects, name: held}
    return replace(moment, T_base_tcp=T, objects=objects)


def _is_inside(moment: Moment, centre: FloatArray, radius_m: float) -> bool:
    """Whether a finger's footprint overlaps a disc."""
    yaw_rad = moment.yaw_rad
    across = np.array([-math.sin(yaw_rad), math.cos(yaw_rad)])
    finger_m = 0.042 * moment.opening + 0.012
    if moment.opening < 0.2:
        return footprint_clearance(moment.p_base[:2], yaw_rad, _BAR_HALF_M, [centre], radius_m) < 0.0
    places = [moment.p_base[:2] + side * finger_m * across for side in (-1.0, 1.0)]
    return any(footprint_clearance(p, yaw_rad, _FINGER_HALF_M, [centre], radius_m) < 0.0 for p in places)
