"""The scripted expert: where the tool goes in the next second, from the simulator's truth and the instruction alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vla_ros.generation.behaviours import BEHAVIOURS, BOWL_RIM_M
from vla_ros.generation.moment import HALF_M, MISSED, Aim, Moment, tool_down
from vla_ros.geometry.rotations import matrix_to_rotvec, rotvec_to_matrix
from vla_ros.geometry.se3 import invert
from vla_ros.instruction import Instruction
from vla_ros.robots.config import GripperConfig
from vla_ros.types import FloatArray, ToolChunk

STEP_S = 0.05
HORIZON_S = 1.0
# How the tool's velocity may change, and how it turns.
_ACCELERATION_M_S2, _TURN_PER_S, _TURN_RAD_S, _TURN_RAD_S2 = 1.0, 4.0, 1.0, 4.0
# Fingers are taken to be where they were told after this.
_FINGER_DELAY_S = 0.1


@dataclass(frozen=True)
class Travel:
    """A moment, and how the tool moves in it.

    Attributes:
        moment: what the expert goes by.
        twist: (6,) of the tool in base axes, commanded, linear first.
    """

    moment: Moment
    twist: FloatArray


class Expert:
    """What a person would do who sees everything and forgets at once what was.

    Args:
        instruction: what is to be done.
        gripper: of the robot.
        table_m: z of the table's top in base.
    """

    def __init__(self, instruction: Instruction, gripper: GripperConfig, table_m: float = 0.0) -> None:
        self.instruction, self.table_m = instruction, table_m
        self.width = 2.0 * HALF_M / gripper.max_width_m
        self._finger_step = gripper.speed_per_s * STEP_S

    def aim(self, moment: Moment) -> Aim:
        """What is wanted in a moment."""
        return BEHAVIOURS[self.instruction.verb](moment, self.instruction)

    def chunk(self, travel: Travel, stamp_ns: int, source: str) -> ToolChunk:
        """The next second as absolute poses and openings, the first one now.

        Args:
            travel: what is known at the stamp.
            stamp_ns: when.
            source: who is said to want it.
        """
        ways = [(travel, self.aim(travel.moment).opening)]
        ways += list(self.foresee(travel, HORIZON_S))
        times_s = STEP_S * np.arange(len(ways), dtype=np.float64)
        poses = np.stack([way.moment.T_base_tcp for way, _ in ways])
        return ToolChunk(stamp_ns, "absolute", poses, np.array([o for _, o in ways]), times_s, source)

    def foresee(self, travel: Travel, duration_s: float) -> Iterator[tuple[Travel, float]]:
        """What follows, step by step of `STEP_S`, if everything goes as meant: (then, opening commanded there)."""
        for _ in range(round(duration_s / STEP_S)):
            aim = self.aim(travel.moment)
            travel = self._step(travel, aim)
            yield travel, aim.opening

    def _step(self, travel: Travel, aim: Aim) -> Travel:
        moment = travel.moment
        linear = _nearer(travel.twist[:3], aim.velocity, _ACCELERATION_M_S2 * STEP_S)
        R = moment.T_base_tcp[:3, :3]
        turn = matrix_to_rotvec(tool_down(moment.p_base, aim.yaw_rad)[:3, :3] @ R.T)
        off_rad = float(np.linalg.norm(turn))
        wanted = turn * (min(_TURN_PER_S, _TURN_RAD_S / max(off_rad, 1e-9)))
        angular = _nearer(travel.twist[3:], wanted, _TURN_RAD_S2 * STEP_S)
        T = np.eye(4)
        T[:3, :3] = rotvec_to_matrix(STEP_S * angular) @ R
        T[:3, 3] = moment.p_base + STEP_S * linear
        after = self._carry(moment, aim, T, linear)
        return Travel(after, np.concatenate([linear, angular]))

    def _carry(self, moment: Moment, aim: Aim, T_base_tcp: FloatArray, linear: FloatArray) -> Moment:
        """What becomes of fingers and of the object."""
        name = self.instruction.thing.name
        is_between, objects = moment.is_between(name), moment.objects
        opening = moment.opening
        if moment.is_closing:
            # What the fingers press a little, they go on pressing.
            touching = min(self.width, opening) if is_between and opening > self.width - MISSED else 0.0
            opening = max(touching, opening - self._finger_step)
        else:
            opening = min(1.0, opening + self._finger_step)
        if moment.is_held(name):
            T_tcp_object = invert(moment.T_base_tcp) @ objects[name]
            objects = {**objects, name: T_base_tcp @ T_tcp_object}
        elif self.instruction.verb == "push" and self._is_pushing(moment, aim):
            moved = objects[name].copy()
            moved[:2, 3] += STEP_S * linear[:2]
            objects = {**objects, name: moved}
        elif not moment.is_closing:
            objects = {**objects, name: self._dropped(moment, objects[name])}
        return replace(moment, T_base_tcp=T_base_tcp, opening=opening, commanded_opening=aim.opening, objects=objects)

    def _is_pushing(self, moment: Moment, aim: Aim) -> bool:
        way = moment.place(self.instruction.thing.name) - moment.p_base
        going = float(np.linalg.norm(aim.velocity[:2]))
        if going < 1e-6 or abs(way[2]) > 0.015 or moment.opening > 0.15:
            return False
        ahead_m = float(way[:2] @ aim.velocity[:2]) / going
        return 0.0 < ahead_m < HALF_M + 0.014 and math.hypot(*way[:2]) < 0.045

    def _dropped(self, moment: Moment, T_base_object: FloatArray) -> FloatArray:
        """Where an object comes to rest that nobody holds: on the one below it, in the bowl, on the table."""
        rest_m = self.table_m + HALF_M
        under = self.instruction.destination
        if under is not None and math.dist(moment.place(under.name)[:2], T_base_object[:2, 3]) < HALF_M:
            p_under = moment.place(under.name)
            rest_m = float(p_under[2]) + 2.0 * HALF_M if under.name != "bowl" else self.table_m + 0.5 * BOWL_RIM_M
        if T_base_object[2, 3] <= rest_m:
            return T_base_object
        T = T_base_object.copy()
        T[2, 3] = rest_m
        return T


def _nearer(value: FloatArray, wanted: FloatArray, most: float) -> FloatArray:
    change = wanted - value
    size = float(np.linalg.norm(change))
    return np.asarray(wanted if size <= most else value + change * (most / size))
