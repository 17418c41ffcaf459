"""Words for directions, worked by hand, and what a pattern of wrong axes comes from."""

from __future__ import annotations

import numpy as np
import pytest

from vla_ros.calibration.axes import AxisResult, describe, judge_axes, likely_cause, measure, plan_moves
from vla_ros.calibration.verdict import is_good
from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray

AHEAD = np.array([0.45, 0.0, 0.4])
DOWN = se3.make_pose(np.array([0.5, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]))


def results(wrong: set[tuple[str, str]] = frozenset(), measured_share: float = 1.0) -> list[AxisResult]:
    """As commanded and as told, but for some."""
    return [
        AxisResult(move, measured_share * move.way_m, 0.1, (move.frame, move.axis) not in wrong)
        for move in plan_moves(DOWN, AHEAD)
    ]


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ([1.0, 0.0, 0.0], "away from the base"),
        ([-1.0, 0.0, 0.0], "back towards the base"),
        ([0.0, 1.0, 0.0], "left"),
        ([0.0, -1.0, 0.0], "right"),
        ([0.0, 0.0, 1.0], "up"),
        ([0.0, 0.0, -1.0], "down"),
    ],
)
def test_directions_of_rep_103_are_said_as_a_person_sees_them(way: list[float], words: str) -> None:
    assert describe(np.array(way), AHEAD).startswith(words)


def test_out_is_where_the_work_space_is() -> None:
    # A work space behind the base's x axis, as of a UR's `base`: +x leads back, and +y to the right of who looks out.
    behind = np.array([-0.45, 0.05, 0.4])
    assert describe(np.array([1.0, 0.0, 0.0]), behind).startswith("back towards the base")
    assert describe(np.array([0.0, 1.0, 0.0]), behind).startswith("right")
    # Beside the base: out is +y, and +x is to the right of it.
    beside = np.array([0.0, 0.5, 0.3])
    assert describe(np.array([0.0, 1.0, 0.0]), beside).startswith("away from the base")
    assert describe(np.array([1.0, 0.0, 0.0]), beside).startswith("right")
    # All around it: REP-103's forward.
    assert describe(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.4])).startswith("away from the base")


def test_slanted_ways_name_both_parts() -> None:
    assert describe(np.array([0.0, 0.6, -0.8]), AHEAD).startswith("down and left")


def test_moves_of_the_tool_are_along_its_own_axes() -> None:
    moves = {(move.frame, move.axis): move for move in plan_moves(DOWN, AHEAD)}
    assert len(moves) == 6
    # Tool down: its x is the base's, its y and z are the other way.
    for axis, way in (("x", [0.02, 0.0, 0.0]), ("y", [0.0, -0.02, 0.0]), ("z", [0.0, 0.0, -0.02])):
        np.testing.assert_allclose(moves["tool", axis].way_m, way, atol=1e-12)
    assert moves["tool", "z"].words == "down, the way the fingers point"


def test_measured_displacement_is_the_way_in_base_and_the_turn() -> None:
    after = se3.make_pose(
        DOWN[:3, 3] + [0.0, 0.02, 0.001], rotations.rpy_to_matrix(np.array([0.0, 0.0, 0.1])) @ DOWN[:3, :3]
    )
    way_m, turned_deg = measure(DOWN, after)
    np.testing.assert_allclose(way_m, [0.0, 0.02, 0.001], atol=1e-12)
    assert turned_deg == pytest.approx(np.degrees(0.1))


def test_all_seen_and_measured_is_good() -> None:
    assert is_good(judge_axes(results()))


def test_any_no_is_bad_and_nobody_looking_too() -> None:
    for wrong in (("base", "x"), ("base", "z"), ("tool", "y")):
        assert not is_good(judge_axes(results({wrong})))
    unseen = [AxisResult(result.move, result.measured_m, 0.0, None) for result in results()]
    assert not is_good(judge_axes(unseen))


def test_a_way_that_a_limit_cut_short_is_bad_though_its_direction_was_right() -> None:
    bad = [check.name for check in judge_axes(results(measured_share=0.7)) if not check.is_good]
    assert bad == [f"{frame}_{axis}_measured" for frame in ("base", "tool") for axis in "xyz"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({("base", "x"), ("base", "y")}, "half a turn"),
        ({("base", "x"), ("base", "y"), ("tool", "x"), ("tool", "y")}, "base_link"),
        ({("base", "z"), ("base", "x")}, "hangs"),
        ({("tool", "x"), ("tool", "y")}, "tcp_frame"),
        ({("base", "y")}, "look once more"),
    ],
)
def test_the_pattern_names_the_likely_cause(wrong: set[tuple[str, str]], word: str) -> None:
    assert word in likely_cause(results(wrong))
    assert any(word in check.text for check in judge_axes(results(wrong)))


def test_half_turn_of_the_base_is_just_the_pattern_that_is_named() -> None:
    """What a person sees of an arm whose YAML names a UR's `base` where the moves were told for `base_link`."""
    R: FloatArray = rotations.rpy_to_matrix(np.array([0.0, 0.0, np.pi]))
    seen = []
    for move in plan_moves(DOWN, AHEAD):
        went = R @ move.way_m
        seen.append(AxisResult(move, move.way_m, 0.0, describe(went, AHEAD) == describe(move.way_m, AHEAD)))
    assert "base_link" in likely_cause(seen)
