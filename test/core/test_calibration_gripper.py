"""Grippers made up of a dead time and a speed; what is said where they are the wrong way round, stuck or mis-scaled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vla_ros.calibration.gripper import GripperFit, Stroke, fit_stroke, judge_gripper, speed_to_write
from vla_ros.calibration.verdict import CalibrateError, is_good
from vla_ros.robots.config import load_robot

CONFIG = load_robot("panda").gripper
assert CONFIG is not None
SEEN = [(1.0, True), (0.0, True)]


def stroke(
    command: float, start: float, end: float, dead_s: float, speed: float, rate_hz: float = 25.0, noise: float = 0.002
) -> Stroke:
    """A stroke at constant speed after a dead time, sampled and noisy."""
    rng = np.random.default_rng(round(1000 * dead_s + 10 * speed))
    times_s = np.arange(-0.4, 3.0, 1.0 / rate_hz) + 0.007
    gone = np.clip((times_s - dead_s) * speed, 0.0, abs(end - start))
    openings = start + np.sign(end - start) * gone + rng.normal(scale=noise, size=len(times_s))
    return fit_stroke(command, times_s, openings)


def strokes(closed: float = 0.0, opened: float = 1.0, speed: float = 1.25) -> list[Stroke]:
    return [stroke(1.0, closed, opened, 0.1, speed), stroke(0.0, opened, closed, 0.1, speed)]


def failed(fit: GripperFit) -> set[str]:
    return {check.name for check in fit.checks if not check.is_good}


@pytest.mark.parametrize(("dead_s", "speed"), [(0.05, 0.8), (0.12, 1.6), (0.3, 2.5)])
def test_dead_time_and_speed_are_found_between_the_states(dead_s: float, speed: float) -> None:
    found = stroke(1.0, 0.0, 1.0, dead_s, speed)
    # States every 40 ms; the line through them is better than that.
    assert found.dead_time_s == pytest.approx(dead_s, abs=0.02)
    assert found.speed_per_s == pytest.approx(speed, rel=0.05)
    assert (found.start, found.end) == pytest.approx((0.0, 1.0), abs=0.005)


def test_good_gripper_is_good_and_its_speed_is_written_where_it_is_off() -> None:
    fit = judge_gripper(strokes(), CONFIG, SEEN)
    assert is_good(fit.checks), [check.text for check in fit.checks]
    assert speed_to_write(fit, CONFIG) is None
    slow = judge_gripper(strokes(speed=0.5), CONFIG, SEEN)
    assert is_good(slow.checks)
    assert speed_to_write(slow, CONFIG) == pytest.approx(0.5, rel=0.05)


def test_the_slower_way_is_the_grippers_speed() -> None:
    ways = [stroke(1.0, 0.0, 1.0, 0.1, 2.0), stroke(0.0, 1.0, 0.0, 0.2, 0.7)]
    fit = judge_gripper(ways, CONFIG, SEEN)
    assert fit.speed_per_s == pytest.approx(0.7, rel=0.05)
    assert fit.dead_time_s == pytest.approx(0.2, abs=0.02)


def test_reversed_gripper_is_told_by_its_figures() -> None:
    ways = [stroke(1.0, 1.0, 0.0, 0.1, 1.25), stroke(0.0, 0.0, 1.0, 0.1, 1.25)]
    fit = judge_gripper(ways, CONFIG, SEEN)
    assert fit.is_reversed
    assert "sense" in failed(fit)
    assert any("swap" in check.text for check in fit.checks)


def test_only_a_person_can_tell_a_gripper_whose_command_and_state_are_both_reversed() -> None:
    fit = judge_gripper(strokes(), CONFIG, [(1.0, False), (0.0, False)])
    assert failed(fit) == {"seen"}
    assert any("told to close and open" in check.text or "told to open and close" in check.text for check in fit.checks)
    assert failed(judge_gripper(strokes(), CONFIG)) == {"seen"}


def test_ends_that_aren_t_reached_are_named_with_the_key_to_change() -> None:
    fit = judge_gripper(strokes(closed=0.02, opened=0.8), CONFIG, SEEN)
    assert failed(fit) == {"open_end"}
    assert any("driver.gripper" in check.text for check in fit.checks)


def test_a_gripper_that_stays_is_no_good_verdict() -> None:
    ways = [stroke(1.0, 0.4, 0.4, 0.1, 1.0), stroke(0.0, 0.4, 0.4, 0.1, 1.0)]
    assert failed(judge_gripper(ways, CONFIG, SEEN)) == {"moves"}


def test_too_few_states_are_refused() -> None:
    with pytest.raises(CalibrateError, match="10 times a second"):
        fit_stroke(1.0, np.array([-0.1, 0.5, 1.0]), np.array([0.0, 0.5, 1.0]))
    with pytest.raises(CalibrateError, match="each way"):
        judge_gripper(strokes()[:1], CONFIG, SEEN)


def test_a_gripper_that_starts_late_is_no_good_verdict() -> None:
    late = [replace(way, dead_time_s=0.8) for way in strokes()]
    assert failed(judge_gripper(late, CONFIG, SEEN)) == {"dead_time"}
