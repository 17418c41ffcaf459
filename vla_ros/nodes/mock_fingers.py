"""The fingers of the mocked gripper: one way at a time, and whoever sent them is told how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from vla_ros.hardware.fingers import FingerMotion, Way
from vla_ros.nodes.deferred_action import conclude
from vla_ros.nodes.sim_cell import SimCell

_POLL_HZ = 50.0


@dataclass
class Goal:
    """What the fingers were sent for.

    Attributes:
        handle: of the action's goal.
        motion: their way.
        end: called once with how it ended (None: stopped by something else) and the opening; ends the goal.
        feel: called with the opening now and then before.
        way: how far it is.
    """

    handle: Any
    motion: FingerMotion
    end: Callable[[Way | None, float], None]
    feel: Callable[[float], None]
    way: Way = Way.MOVING


class MockFingers:
    """Moves the simulated gripper for action servers.

    Args:
        node: has the timer in which goals end.
        cell: with the gripper.
    """

    def __init__(self, node: Node, cell: SimCell) -> None:
        self._cell = cell
        self._goal: Goal | None = None
        self.opening = 1.0
        """As measured last."""

        node.create_timer(1.0 / _POLL_HZ, self._poll)

    def send(self, goal: Goal) -> None:
        """Sends them on their way; whatever they were sent for before is over."""
        self.halt()
        self._goal = goal

    def motion_to(self, opening: float, speed_per_s: float) -> FingerMotion:
        """A way from where they are."""
        return FingerMotion(self.opening, opening, speed_per_s)

    def halt(self) -> None:
        """Ends what they were sent for, wherever they are."""
        goal, self._goal = self._goal, None
        if goal is not None:
            goal.end(None, self.opening)

    def step(self, dt_s: float, measured: float) -> None:
        """A tick of the simulation, with the cell's lock held."""
        self.opening, goal = measured, self._goal
        if goal is not None and goal.way is Way.MOVING:
            goal.way = goal.motion.step(dt_s, measured)
            self._cell.world.set_gripper_command(min(max(goal.motion.command, 0.0), 1.0))

    def _poll(self) -> None:
        goal = self._goal
        if goal is None:
            return
        if goal.handle.is_cancel_requested:
            with self._cell.lock:
                self._cell.world.set_gripper_command(self.opening)
            self.halt()
        elif goal.way is not Way.MOVING:
            self._goal = None
            goal.end(goal.way, self.opening)
        else:
            goal.feel(self.opening)


def end_goal(handle: Any, is_success: bool, result: Any) -> None:
    """Ends a goal as it deserves: canceled if somebody asked for that, else by success."""
    conclude(handle, "canceled" if handle.is_cancel_requested else "succeed" if is_success else "abort", result)
