"""What a gripper is told, against a server that answers late, stops slowly and forgets, as franka_gripper may."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.gripper_goals import (
    ANSWER_TIMEOUT_S,
    GOAL_TIMEOUT_S,
    RETARGET,
    TRIES,
    Cancel,
    GripperGoal,
    GripperTask,
    Outcome,
    Send,
)

DT_S = 0.05


@dataclass
class Gripper:
    """A server and its fingers. It accepts goals a little later, and refuses to be given two at once by raising."""

    task: GripperTask
    opening: float = 1.0
    object_at: float = 0.0
    accept_s: float = 0.02
    stop_s: float = 0.1
    speed_per_s: float = 1.25
    is_there: bool = True
    fails: int = 0
    now_s: float = 0.0
    sent: list[GripperGoal] = field(default_factory=list)
    cancels: int = 0
    _goal: tuple[GripperGoal, int, float] | None = None
    _is_accepted: bool = False
    _stops_at_s: float | None = None

    def wish(self, opening: float) -> None:
        self.task = self.task.wishing(opening)

    def tick(self) -> None:
        self.now_s += DT_S
        self._serve()
        self.task, action = self.task.step(self.now_s, self.is_there, self.opening)
        if isinstance(action, Send):
            assert self._goal is None, "two goals at once"
            self._goal, self._is_accepted = (action.goal, action.number, self.now_s), False
            self.sent.append(action.goal)
        elif isinstance(action, Cancel):
            assert self._goal is not None
            assert self._goal[1] == action.number
            assert self._is_accepted
            self.cancels += 1
            self._stops_at_s = self.now_s + self.stop_s

    def run(self, duration_s: float) -> None:
        for _ in range(round(duration_s / DT_S)):
            self.tick()

    def _serve(self) -> None:
        if self._goal is None or not self.is_there:
            return
        goal, number, sent_s = self._goal
        if not self._is_accepted:
            if self.now_s >= sent_s + self.accept_s:
                self._is_accepted = True
                self.task = self.task.accepted(number)
            return
        if self._stops_at_s is not None:
            if self.now_s >= self._stops_at_s:
                self._end("canceled", number)
            return
        if self.fails:
            self.fails -= 1
            self._end("failed", number, "command aborted")
            return
        target = 1.0 if goal.kind == "home" else max(goal.opening, min(self.object_at, self.opening))
        step = np.clip(target - self.opening, -self.speed_per_s * DT_S, self.speed_per_s * DT_S)
        self.opening += float(step)
        if abs(self.opening - target) < 1e-9:
            held = goal.kind == "move" and target > goal.opening
            self._end("blocked" if held else "reached", number)

    def _end(self, outcome: Outcome, number: int, text: str = "") -> None:
        self._goal, self._stops_at_s = None, None
        self.task = self.task.ended(number, outcome, text, self.now_s)


def franka(**given: float) -> Gripper:
    return Gripper(GripperTask(has_grasp=True), **given)  # type: ignore[arg-type]


def test_nothing_is_sent_before_a_wish() -> None:
    gripper = franka()
    gripper.run(3.0)
    assert gripper.sent == []


def test_closing_is_a_grasp_and_opening_a_move() -> None:
    gripper = franka(object_at=0.4)
    gripper.wish(0.0)
    gripper.run(2.0)
    assert gripper.opening == pytest.approx(0.4)
    gripper.wish(1.0)
    gripper.run(2.0)
    assert gripper.sent == [GripperGoal("grasp", 0.0), GripperGoal("move", 1.0)]
    assert gripper.task.problem == ""


def test_fingers_that_are_to_come_a_little_nearer_grasp_nothing() -> None:
    gripper = franka()
    gripper.wish(1.0)
    gripper.run(2.0)
    gripper.wish(0.85)
    gripper.run(2.0)
    assert gripper.sent[-1] == GripperGoal("move", 0.85)


def test_gripper_without_grasps_is_told_moves_alone() -> None:
    gripper = Gripper(GripperTask(has_grasp=False), object_at=0.4)
    gripper.wish(0.0)
    gripper.run(2.0)
    assert gripper.sent == [GripperGoal("move", 0.0)]
    assert gripper.task.problem == ""  # An object between the fingers is no error, nor tried again.


def test_newest_wish_ends_the_goal_under_way() -> None:
    gripper = franka()
    gripper.wish(0.0)
    gripper.run(0.2)
    gripper.wish(1.0)
    gripper.run(3.0)
    assert gripper.cancels == 1
    assert gripper.sent == [GripperGoal("grasp", 0.0), GripperGoal("move", 1.0)]
    assert gripper.opening == pytest.approx(1.0)


def test_wish_hardly_different_lets_the_goal_end_first() -> None:
    gripper = franka()
    gripper.wish(0.5)
    gripper.run(0.15)
    gripper.wish(0.5 - 0.5 * RETARGET)
    gripper.run(2.0)
    assert gripper.cancels == 0
    assert gripper.opening == pytest.approx(0.5 - 0.5 * RETARGET)


def test_same_wish_again_is_not_sent_again() -> None:
    gripper = franka()
    for _ in range(40):
        gripper.wish(0.3)
        gripper.tick()
    assert gripper.sent == [GripperGoal("grasp", 0.3)]


def test_wish_out_of_range_is_brought_into_it() -> None:
    gripper = franka()
    gripper.wish(-3.0)
    gripper.run(2.0)
    gripper.wish(7.0)
    gripper.run(2.0)
    assert [goal.opening for goal in gripper.sent] == [0.0, 1.0]


def test_goal_that_fails_is_tried_again_and_given_up_with_what_was_said() -> None:
    gripper = franka()
    gripper.fails = TRIES - 1
    gripper.wish(0.0)
    gripper.run(5.0)
    assert len(gripper.sent) == TRIES
    assert gripper.opening == pytest.approx(0.0)
    assert gripper.task.problem == ""
    gripper.fails = 100
    gripper.wish(1.0)
    gripper.run(10.0)
    assert len(gripper.sent) == 2 * TRIES
    assert "command aborted" in gripper.task.problem
    gripper.fails = 0
    gripper.wish(0.5)
    gripper.run(3.0)
    assert gripper.opening == pytest.approx(0.5)
    assert gripper.task.problem == ""


def test_server_that_comes_back_is_told_again() -> None:
    gripper = franka()
    gripper.wish(0.0)
    gripper.run(0.2)
    gripper.is_there = False
    gripper._goal, gripper._stops_at_s = None, None
    gripper.run(1.0)
    gripper.is_there = True
    gripper.run(2.0)
    assert gripper.opening == pytest.approx(0.0)
    assert len(gripper.sent) == 2


@pytest.mark.parametrize(("answers", "limit_s"), [(False, ANSWER_TIMEOUT_S), (True, GOAL_TIMEOUT_S)])
def test_goal_that_is_never_answered_is_sent_again(answers: bool, limit_s: float) -> None:
    task = GripperTask(has_grasp=True).wishing(0.0)
    task, first = task.step(0.0, True, 1.0)
    assert isinstance(first, Send)
    if answers:
        task = task.accepted(first.number)
    task, nothing = task.step(limit_s - 0.1, True, 1.0)
    assert nothing is None
    task, second = task.step(limit_s + 0.1, True, 1.0)
    assert isinstance(second, Send)
    # What the first one's server says then is of a goal that was given up.
    assert task.ended(first.number, "failed", "late", limit_s + 0.2) == task
    assert task.accepted(first.number) == task


def test_homing_goes_first_is_not_ended_by_a_wish_and_the_wish_follows() -> None:
    gripper = franka()
    gripper.wish(0.0)
    gripper.run(2.0)
    gripper.task = gripper.task.homing()
    gripper.run(0.3)
    assert 0.0 < gripper.opening < 0.5
    gripper.wish(0.2)
    gripper.run(4.0)
    assert [goal.kind for goal in gripper.sent] == ["grasp", "home", "grasp"]
    assert gripper.opening == pytest.approx(0.2)


def test_wish_of_before_is_in_force_again_after_homing() -> None:
    gripper = franka()
    gripper.wish(0.3)
    gripper.run(2.0)
    gripper.task = gripper.task.homing()
    gripper.run(4.0)
    assert [goal.kind for goal in gripper.sent] == ["grasp", "home", "grasp"]
    assert gripper.opening == pytest.approx(0.3)


def test_homing_is_forgotten_with_the_server() -> None:
    gripper = franka()
    gripper.is_there = False
    gripper.task = gripper.task.homing()
    gripper.tick()
    gripper.is_there = True
    gripper.run(2.0)
    assert gripper.sent == []


@settings(max_examples=150, deadline=None)
@given(
    wishes=st.lists(st.tuples(st.floats(-0.2, 1.2), st.integers(0, 20)), max_size=15),
    accept_s=st.floats(0.0, 0.5),
    stop_s=st.floats(0.0, 0.5),
    object_at=st.floats(0.0, 1.0),
    fails=st.integers(0, TRIES - 1),
)
def test_gripper_ends_where_the_newest_wish_was(
    wishes: list[tuple[float, int]], accept_s: float, stop_s: float, object_at: float, fails: int
) -> None:
    gripper = franka(accept_s=accept_s, stop_s=stop_s, object_at=object_at)
    for number, (wish, ticks) in enumerate(wishes):
        gripper.fails = fails if number == len(wishes) // 2 else 0
        gripper.wish(wish)
        gripper.run(ticks * DT_S)
    gripper.run(8.0)
    if wishes:
        wish = min(max(wishes[-1][0], 0.0), 1.0)
        # An object stops the fingers that close; nothing stops those that open.
        # A thousandth of the opening isn't another wish.
        assert wish - 1e-3 <= gripper.opening <= max(wish, object_at) + 1e-3
        assert gripper.task.running is None
