"""What a gripper that takes one goal at a time is to be sent next: the newest wish wins, and nothing waits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["move", "grasp", "home"]
Outcome = Literal["reached", "blocked", "failed", "canceled", "refused"]
"""How a goal ended: as wished; before, on an object; with an error; as we asked; without having begun."""

RETARGET = 0.02
"""Opening by which a wish has to differ from the goal under way to end it: less isn't worth a stop of the fingers."""
CLOSING = 0.01
"""Opening by which a wish has to lie below the measured one to be a grasp."""
GRASP_BELOW = 0.5
"""Wishes above are places for the fingers, not grasps: a grasp closes until something is between them."""
ANSWER_TIMEOUT_S = 2.0
"""For a server to say that it takes a goal, or that it has ended one."""
GOAL_TIMEOUT_S = 20.0
"""For a goal to end. Homing takes some 10 s."""
TRIES, RETRY_AFTER_S = 3, 0.5
_SAME = 1e-3


@dataclass(frozen=True)
class GripperGoal:
    """What a gripper is told.

    Attributes:
        kind: `move` to an opening, `grasp` by closing to it with force, or `home`, which calibrates the fingers' ends.
        opening: in [0, 1].
    """

    kind: Kind
    opening: float = 0.0


@dataclass(frozen=True)
class Send:
    """A goal to be sent. What is said of it carries its number."""

    goal: GripperGoal
    number: int


@dataclass(frozen=True)
class Cancel:
    """The goal under way is to be ended."""

    number: int


@dataclass(frozen=True)
class GripperTask:
    """Where things stand.

    Attributes:
        has_grasp: whether the gripper knows grasps beside moves.
        wish: opening that is wanted, None before the first.
        wants_home: whether its ends are to be found first.
        running: goal that was sent and has no result yet.
        number: of the last goal.
        is_accepted: whether the server has taken it.
        is_canceling: whether its end was asked for.
        since_s: when it was sent, or its end asked for.
        settled: opening that the last result stands for, None if the wish is still to be sent.
        tries: goals of this wish that failed.
        wait_until_s: before that none is sent.
        problem: what went wrong last, empty for nothing.
    """

    has_grasp: bool
    wish: float | None = None
    wants_home: bool = False
    running: GripperGoal | None = None
    number: int = 0
    is_accepted: bool = False
    is_canceling: bool = False
    since_s: float = 0.0
    settled: float | None = None
    tries: int = 0
    wait_until_s: float = 0.0
    problem: str = ""

    def wishing(self, opening: float) -> GripperTask:
        """With a new wish; what it was told before counts no more.

        Args:
            opening: is brought into [0, 1].
        """
        opening = min(max(opening, 0.0), 1.0)
        if self.wish is not None and abs(opening - self.wish) < _SAME:
            return self
        return replace(self, wish=opening, settled=None, tries=0, wait_until_s=0.0)

    def homing(self) -> GripperTask:
        """With the wish to find the fingers' ends, before anything else."""
        return replace(self, wants_home=True, tries=0, wait_until_s=0.0)

    def accepted(self, number: int) -> GripperTask:
        """The server has taken goal `number`."""
        return replace(self, is_accepted=True) if self._is_running(number) else self

    def ended(self, number: int, outcome: Outcome, text: str, now_s: float) -> GripperTask:
        """Goal `number` has ended. Results of goals that were given up come late, and mean nothing.

        Args:
            number: of the goal.
            outcome: how.
            text: what the server says of it.
            now_s: seconds of some clock.
        """
        goal = self.running
        if goal is None or not self._is_running(number):
            return self
        idle = replace(self, running=None, is_accepted=False, is_canceling=False)
        if outcome in ("reached", "blocked"):
            idle = replace(idle, tries=0, problem="")
            if goal.kind == "home":  # The fingers are open then, whatever is wished.
                return replace(idle, wants_home=False, settled=None)
            return replace(idle, settled=goal.opening)
        if self.is_canceling or outcome == "canceled":
            return idle
        idle = replace(idle, tries=self.tries + 1, problem=f"{goal.kind}: {text or outcome}")
        if idle.tries < TRIES:
            return replace(idle, wait_until_s=now_s + RETRY_AFTER_S)
        return replace(idle, wants_home=False, settled=self.wish if goal.kind == "home" else goal.opening, tries=0)

    def step(self, now_s: float, is_ready: bool, measured: float | None) -> tuple[GripperTask, Send | Cancel | None]:
        """What is to be done now. Without a server homing is forgotten: it moves, and nobody may be looking later.

        Args:
            now_s: seconds of the same clock.
            is_ready: whether the gripper's server is there.
            measured: opening, None if it isn't known.
        """
        if not is_ready:
            return replace(self._given_up(), wants_home=False), None
        task = self._given_up() if self.running is not None and self._is_overdue(now_s) else self
        if task.running is not None:
            if not task._is_outdated():
                return task, None
            return replace(task, is_canceling=True, since_s=now_s), Cancel(task.number)
        goal = task._next(measured)
        if goal is None or now_s < task.wait_until_s:
            return task, None
        number = task.number + 1
        return replace(task, running=goal, number=number, is_accepted=False, since_s=now_s), Send(goal, number)

    def _is_running(self, number: int) -> bool:
        return self.running is not None and number == self.number

    def _is_overdue(self, now_s: float) -> bool:
        waits_for_answer = self.is_canceling or not self.is_accepted
        return now_s - self.since_s > (ANSWER_TIMEOUT_S if waits_for_answer else GOAL_TIMEOUT_S)

    def _is_outdated(self) -> bool:
        """Whether the goal under way is to be ended for a newer wish. Homing is let through."""
        goal = self.running
        if goal is None or goal.kind == "home" or self.is_canceling or not self.is_accepted or self.wish is None:
            return False
        return self.wants_home or abs(self.wish - goal.opening) > RETARGET

    def _given_up(self) -> GripperTask:
        return replace(self, running=None, is_accepted=False, is_canceling=False)

    def _next(self, measured: float | None) -> GripperGoal | None:
        if self.wants_home:
            return GripperGoal("home")
        if self.wish is None or (self.settled is not None and abs(self.wish - self.settled) < _SAME):
            return None
        is_closing = self.wish < (GRASP_BELOW if measured is None else min(GRASP_BELOW, measured - CLOSING))
        return GripperGoal("grasp" if self.has_grasp and is_closing else "move", self.wish)
