"""The gripper's channel across chunks: nothing flutters, nothing is averaged, what is meant isn't late."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.actions.gripper import GripperHysteresis, GripperSchedule, schedule
from vla_ros.actions.timeline import ChunkTimeline
from vla_ros.geometry import se3
from vla_ros.types import ToolChunk

NS = 1_000_000_000
DEFAULT = GripperHysteresis()
NONE = GripperHysteresis(closed_below=0.5, open_above=0.5, persist_s=0.0, dwell_s=0.0)


def at(openings: list[float], start_s: float = 0.0, period_s: float = 0.05) -> tuple[list[int], np.ndarray]:
    return [round((start_s + period_s * k) * NS) for k in range(len(openings))], np.array(openings)


def seen(found: GripperSchedule, until_s: float, step_s: float = 0.01) -> list[float | None]:
    return [found.opening(round(t * NS)) for t in np.arange(0.0, until_s, step_s)]


def test_openings_on_one_side_pass_as_they_are() -> None:
    openings = [1.0, 0.9, 0.75, 0.62, 0.8, 0.45, 0.7]
    found = schedule(DEFAULT, *at(openings), 0, None)
    assert [found.opening(round(0.05 * k * NS)) for k in range(7)] == openings


def test_gripper_that_is_led_continuously_shuts_without_delay() -> None:
    openings = np.linspace(1.0, 0.0, 21).tolist()
    found = schedule(DEFAULT, *at(openings), 0, None)
    assert [found.opening(round(0.05 * k * NS)) for k in range(21)] == openings


def test_change_that_stays_is_in_time_and_a_flicker_is_left_out() -> None:
    # Closed for one point of 50 ms, and for good from point 6 on.
    found = schedule(DEFAULT, *at([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), 0, None)
    assert found.opening(round(0.11 * NS)) == 1.0
    assert found.opening(round(0.299 * NS)) == 1.0
    assert found.opening(round(0.3 * NS)) == 0.0
    assert set(seen(found, 0.5)) == {0.0, 1.0}


def test_between_the_thresholds_the_side_stays() -> None:
    found = schedule(DEFAULT, *at([0.0, 0.55, 0.0, 0.55, 0.0]), 0, None)
    assert not any(found.step_at(t_ns).is_open for t_ns in range(0, NS, NS // 100))  # type: ignore[union-attr]


def test_chunks_that_contradict_each_other_do_not_make_it_flutter() -> None:
    """A policy at its decision's edge: every 0.1 s the other way round, each time for all of its horizon."""
    found, flips, last = None, 0, 1.0
    for number in range(40):
        due_ns, openings = at([float(number % 2 == 0)] * 16, start_s=0.1 * number)
        found = schedule(DEFAULT, due_ns, openings, round(0.1 * number * NS), found)
        for k in range(10):
            opening = found.opening(round((0.1 * number + 0.01 * k) * NS))
            assert opening in (0.0, 1.0)
            flips, last = flips + (opening != last), float(opening)  # type: ignore[arg-type]
    # 4 s, and 0.3 s on a side at least.
    assert flips <= 14


def test_change_is_made_up_for_when_the_dwell_is_over() -> None:
    shut = schedule(DEFAULT, *at([1.0, 0.0, 0.0, 0.0]), 0, None)
    due_ns, openings = at([1.0] * 16, start_s=0.1)
    again = schedule(DEFAULT, due_ns, openings, round(0.1 * NS), shut)
    assert again.opening(round(0.34 * NS)) == 0.0
    assert again.opening(round(0.36 * NS)) == 1.0


def test_newest_late_point_is_in_force() -> None:
    found = schedule(DEFAULT, *at([1.0, 0.0, 0.0, 0.0, 0.0]), round(0.12 * NS), None)
    assert found.opening(round(0.12 * NS)) == 0.0


def test_before_its_first_point_a_chunk_leaves_the_gripper_as_it_is() -> None:
    found = schedule(DEFAULT, *at([0.8, 0.8], start_s=0.5), 0, None)
    assert found.opening(NS // 4) is None
    after = schedule(DEFAULT, *at([0.2, 0.2], start_s=1.5), NS, found)
    assert after.opening(round(1.2 * NS)) == 0.8


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20), st.integers(0, 900))
@settings(max_examples=100, deadline=None)
def test_without_hysteresis_openings_are_the_points(openings: list[float], now_ms: int) -> None:
    due_ns, values = at(openings)
    found = schedule(NONE, due_ns, values, now_ms * 1_000_000, None)
    for t_ns in range(now_ms * 1_000_000, 1_200_000_000, 17_000_000):
        index = int(np.searchsorted(due_ns, t_ns, side="right")) - 1
        assert found.opening(t_ns) == openings[max(0, index)] or index < 0


@given(st.lists(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_opening_is_made_up_and_no_side_is_left_early(chunks: list[list[float]]) -> None:
    found, sides = None, []
    for number, openings in enumerate(chunks):
        due_ns, values = at(openings, start_s=0.1 * number)
        found = schedule(DEFAULT, due_ns, values, round(0.1 * number * NS), found)
        for k in range(10):
            t_ns = round((0.1 * number + 0.01 * k) * NS)
            opening = found.opening(t_ns)
            assert opening in {value for chunk in chunks for value in chunk}
            sides.append((t_ns, found.step_at(t_ns).is_open))  # type: ignore[union-attr]
    flips = [b_ns for (_, a), (b_ns, b) in pairwise(sides) if a != b]
    assert all(later - earlier >= 0.29 * NS for earlier, later in pairwise(flips))


def test_timeline_carries_the_gripper_from_chunk_to_chunk() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    still = np.tile(np.eye(4), (8, 1, 1))
    due_s = 0.1 * np.arange(8)
    for number, opening in enumerate((1.0, 0.0, 1.0, 0.0)):
        now_ns = (1 + number) * NS // 20
        timeline.offer(
            ToolChunk(now_ns, "absolute", still, np.full(8, opening), due_s, "p"),
            now_ns,
            se3.make_pose(np.zeros(3)),
            None,
        )
    # Open at first, shut at 0.1 s, and what came then within the dwell came to nothing.
    assert timeline.sample(NS // 5).gripper_opening == 0.0  # type: ignore[union-attr]
    assert timeline.sample(NS).gripper_opening == 0.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change", [{"closed_below": 0.7}, {"open_above": 1.2}, {"persist_s": -0.1}, {"dwell_s": float("nan")}]
)
def test_hysteresis_out_of_order_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"order|negative"):
        GripperHysteresis(**change)
