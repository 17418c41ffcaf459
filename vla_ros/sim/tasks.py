"""Whether an instruction was carried out, judged from the simulator's ground truth, not from what a policy says.

Things that no instruction can name (`distractor_*`) are in nobody's way here: what becomes of them doesn't count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.instruction import Direction, Instruction, parse_instruction
from vla_ros.sim.placement import AXES
from vla_ros.types import FloatArray

Outcome = Literal["running", "success", "failure"]
_UNNAMED = "distractor_"

TIME_LIMIT_S = 30.0
HOLD_S = 0.5  # How long a reach and a pick have to last.
REACH_HORIZONTAL_M, REACH_ABOVE_M = 0.03, 0.09  # From the block's centre to the tcp.
PUSH_M = 0.05
PICK_RISE_M, PICK_FROM_TCP_M = 0.08, 0.05
OTHERS_RISE_M = 0.02  # Another block raised this far was picked too.
FALL_M = 0.03  # A block this far below its resting height is off the table.
# Of the thing's centre from the bowl's: within its wall, below its rim; and how far the bowl may have moved or leant.
PLACE_HORIZONTAL_M, PLACE_BELOW_M, BOWL_MOVED_M, BOWL_UPRIGHT = 0.055, 0.02, 0.08, 0.94
STACK_HORIZONTAL_M, STACK_HEIGHT_M, STACK_TOLERANCE_M = 0.025, 0.04, 0.008
# A hand has let go that is open this far, which is more than a thing's width, or that is this far away.
RELEASED_OPENING, RELEASED_FROM_TCP_M = 0.6, 0.07


@dataclass(frozen=True)
class Task:
    """Something to do in the simulated cell.

    Attributes:
        instruction: what.
        time_limit_s: simulated time after which it has failed.
    """

    instruction: Instruction
    time_limit_s: float = TIME_LIMIT_S

    @classmethod
    def parse(cls, text: str, time_limit_s: float = TIME_LIMIT_S) -> Task:
        """The task that an instruction asks for.

        Raises:
            InstructionError: if it can't be read.
        """
        return cls(parse_instruction(text), time_limit_s)


class Judge:
    """Watches one attempt. The first outcome other than `running` stands."""

    def __init__(self, task: Task, initial_poses: Mapping[str, FloatArray]) -> None:
        """Begins an attempt.

        Args:
            task: what is attempted.
            initial_poses: `World.object_poses` at the start, blocks at rest on the table.
        """
        self._task = task
        self._named = task.instruction.thing.name
        destination = task.instruction.destination
        self._destination = "" if destination is None else destination.name
        self._initial = {name: T[:3, 3].copy() for name, T in initial_poses.items() if not name.startswith(_UNNAMED)}
        self._start_s: float | None = None
        self._since_s: float | None = None
        self._outcome: Outcome = "running"
        self.reason = ""
        """For a person: why it ended, empty while it runs."""

    def update(
        self, object_poses: Mapping[str, FloatArray], T_base_tcp: FloatArray, opening: float | None, time_s: float
    ) -> Outcome:
        """Judges a moment; to be called at least ten times a simulated second.

        Args:
            object_poses: `World.object_poses`.
            T_base_tcp: (4, 4) true tcp pose.
            opening: gripper opening, None for a robot without one, with which nothing can be picked.
            time_s: simulated time.
        """
        if self._outcome != "running":
            return self._outcome
        if self._start_s is None:
            self._start_s = time_s
        positions = {name: object_poses[name][:3, 3] for name in self._initial}
        fallen = sorted(name for name in positions if positions[name][2] < self._initial[name][2] - FALL_M)
        if fallen:
            return self._end("failure", f"{', '.join(fallen)} fell off the table")
        if self._is_met(positions, object_poses, T_base_tcp[:3, 3], opening):
            self._since_s = time_s if self._since_s is None else self._since_s
            if self._task.instruction.verb == "push" or time_s - self._since_s >= HOLD_S - 1e-9:
                return self._end("success", f"did {self._task.instruction}")
        else:
            self._since_s = None
        if time_s - self._start_s > self._task.time_limit_s:
            return self._end("failure", f"not done within {self._task.time_limit_s:g} s")
        return "running"

    def _end(self, outcome: Outcome, reason: str) -> Outcome:
        self._outcome, self.reason = outcome, reason
        return outcome

    def _is_met(
        self,
        positions: Mapping[str, FloatArray],
        object_poses: Mapping[str, FloatArray],
        p_base_tcp: FloatArray,
        opening: float | None,
    ) -> bool:
        verb = self._task.instruction.verb
        if verb == "reach":
            return self._is_reached(positions, p_base_tcp)
        if verb == "push":
            return self._is_pushed(positions[self._named])
        if opening is None:
            return False
        if verb == "pick":
            return self._is_picked(positions, p_base_tcp)
        is_away = float(np.linalg.norm(positions[self._named] - p_base_tcp)) >= RELEASED_FROM_TCP_M
        if not (is_away or opening >= RELEASED_OPENING) or not self._are_others_down(positions):
            return False
        if verb == "place":
            return self._is_placed(positions, object_poses[self._destination])
        return self._is_stacked(positions)

    def _is_reached(self, positions: Mapping[str, FloatArray], p_base_tcp: FloatArray) -> bool:
        """The tcp is over the block, low, and no other block is nearer."""
        offset = p_base_tcp - positions[self._named]
        distance = {name: float(np.linalg.norm((p_base_tcp - p)[:2])) for name, p in positions.items()}
        return (
            distance[self._named] <= REACH_HORIZONTAL_M
            and offset[2] <= REACH_ABOVE_M
            and min(distance, key=lambda name: distance[name]) == self._named
        )

    def _is_pushed(self, p_base_block: FloatArray) -> bool:
        """The block lies on the table, moved far enough, and more that way than across it."""
        moved = p_base_block - self._initial[self._named]
        axis = np.array(AXES[self._direction])
        along = float(moved[:2] @ axis)
        across = float(np.linalg.norm(moved[:2] - along * axis))
        return along >= PUSH_M and along > across and abs(float(moved[2])) < OTHERS_RISE_M

    def _is_picked(self, positions: Mapping[str, FloatArray], p_base_tcp: FloatArray) -> bool:
        """The thing is up and between the fingers, and the others are not up."""
        rise_m = float(positions[self._named][2] - self._initial[self._named][2])
        is_held = float(np.linalg.norm(positions[self._named] - p_base_tcp)) <= PICK_FROM_TCP_M
        return rise_m >= PICK_RISE_M and is_held and self._are_others_down(positions)

    def _is_placed(self, positions: Mapping[str, FloatArray], T_base_bowl: FloatArray) -> bool:
        """The thing is in the bowl, which stands where it stood."""
        offset = positions[self._named] - T_base_bowl[:3, 3]
        moved_m = float(np.linalg.norm(T_base_bowl[:2, 3] - self._initial[self._destination][:2]))
        is_inside = float(np.linalg.norm(offset[:2])) <= PLACE_HORIZONTAL_M and offset[2] <= PLACE_BELOW_M
        return is_inside and moved_m <= BOWL_MOVED_M and float(T_base_bowl[2, 2]) >= BOWL_UPRIGHT

    def _is_stacked(self, positions: Mapping[str, FloatArray]) -> bool:
        """The thing stands on the other one, which stands on the table."""
        offset = positions[self._named] - positions[self._destination]
        is_above = float(np.linalg.norm(offset[:2])) <= STACK_HORIZONTAL_M
        return is_above and abs(float(offset[2]) - STACK_HEIGHT_M) <= STACK_TOLERANCE_M

    def _are_others_down(self, positions: Mapping[str, FloatArray]) -> bool:
        others = [name for name in positions if name != self._named]
        return all(float(positions[name][2] - self._initial[name][2]) < OTHERS_RISE_M for name in others)

    @property
    def _direction(self) -> Direction:
        direction = self._task.instruction.direction
        if direction is None:
            raise ValueError(f"{self._task.instruction} has no direction to push")
        return direction
