"""Whether an instruction was carried out, judged from the simulator's ground truth, not from what a policy says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.instruction import Direction, Instruction, parse_instruction
from vla_ros.sim.placement import AXES
from vla_ros.types import FloatArray

Outcome = Literal["running", "success", "failure"]

TIME_LIMIT_S = 30.0
HOLD_S = 0.5  # How long a reach and a pick have to last.
REACH_HORIZONTAL_M, REACH_ABOVE_M = 0.03, 0.09  # From the block's centre to the tcp.
PUSH_M = 0.05
PICK_RISE_M, PICK_FROM_TCP_M = 0.08, 0.05
OTHERS_RISE_M = 0.02  # Another block raised this far was picked too.
FALL_M = 0.03  # A block this far below its resting height is off the table.


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
        self._initial = {name: T_base_object[:3, 3].copy() for name, T_base_object in initial_poses.items()}
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
        positions = {name: T_base_object[:3, 3] for name, T_base_object in object_poses.items()}
        fallen = sorted(name for name in positions if positions[name][2] < self._initial[name][2] - FALL_M)
        if fallen:
            return self._end("failure", f"{', '.join(fallen)} fell off the table")
        if self._is_met(positions, T_base_tcp[:3, 3], opening):
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

    def _is_met(self, positions: Mapping[str, FloatArray], p_base_tcp: FloatArray, opening: float | None) -> bool:
        if self._task.instruction.verb == "reach":
            return self._is_reached(positions, p_base_tcp)
        if self._task.instruction.verb == "push":
            return self._is_pushed(positions[self._named])
        return opening is not None and self._is_picked(positions, p_base_tcp)

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
        """The block is up and between the fingers, and the others are not up."""
        rise = {name: float(positions[name][2] - self._initial[name][2]) for name in positions}
        is_held = float(np.linalg.norm(positions[self._named] - p_base_tcp)) <= PICK_FROM_TCP_M
        others = [rise[name] for name in rise if name != self._named]
        return rise[self._named] >= PICK_RISE_M and is_held and all(r < OTHERS_RISE_M for r in others)

    @property
    def _direction(self) -> Direction:
        direction = self._task.instruction.direction
        if direction is None:
            raise ValueError(f"{self._task.instruction} has no direction to push")
        return direction
