"""What a gripper does when it is told to open and to close: sense, range, speed and dead time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.calibration.verdict import CalibrateError, Check, at_most
from vla_ros.robots.config import GripperConfig
from vla_ros.types import FloatArray

_MOVED = 0.1
_RANGE = 0.05
_SPEED_AGREES = 0.2
_DEAD_LIMIT_S = 0.5
_REST_S = 0.3


@dataclass(frozen=True)
class Stroke:
    """One command and what came of it.

    Attributes:
        command: opening that was asked for.
        start: opening before.
        end: opening after.
        dead_time_s: from the command until it moves.
        speed_per_s: openings per second on the way.
    """

    command: float
    start: float
    end: float
    dead_time_s: float
    speed_per_s: float

    @property
    def travel(self) -> float:
        """How far it went, signed."""
        return self.end - self.start


@dataclass(frozen=True)
class GripperFit:
    """A gripper as it was found.

    Attributes:
        closed: opening that `gripper/state` says when told 0.
        opened: the same when told 1.
        speed_per_s: the slower of both ways.
        dead_time_s: the longer of both ways.
        is_reversed: whether `gripper/state` falls when it is told to open.
        checks: the verdict.
    """

    closed: float
    opened: float
    speed_per_s: float
    dead_time_s: float
    is_reversed: bool
    checks: tuple[Check, ...]


def fit_stroke(command: float, times_s: FloatArray, openings: FloatArray) -> Stroke:
    """Reads a stroke: the line through a fifth and four fifths of its way; where that begins, the dead time ends.

    Args:
        command: opening that was asked for at time 0.
        times_s: (n,) of `gripper/state`, rising, some before 0.
        openings: (n,).

    Raises:
        CalibrateError: for too few states.
    """
    before = openings[times_s <= 0.0]
    if len(before) < 3 or len(openings) - len(before) < 5:
        problem = f"{len(before)} states before the command and {len(openings) - len(before)} after it"
        raise CalibrateError("gripper", problem, "is gripper/state published 10 times a second and more?")
    start = float(np.median(before))
    end = float(np.median(openings[times_s >= times_s[-1] - _REST_S]))
    travel = end - start
    if abs(travel) < _MOVED:
        return Stroke(command, start, end, float("nan"), float("nan"))
    share = (openings - start) / travel
    first_s, last_s = (_crossing(times_s, share, level) for level in (0.2, 0.8))
    # States too seldom for two on the way: no faster than from one to the next.
    duration_s = max(last_s - first_s, 0.5 * float(np.median(np.diff(times_s))))
    speed = 0.6 / duration_s
    return Stroke(command, start, end, max(0.0, first_s - 0.2 / speed), speed * abs(travel))


def _crossing(times_s: FloatArray, share: FloatArray, level: float) -> float:
    after = int(np.flatnonzero((share >= level) & (times_s > 0.0))[0])
    low, high = share[after - 1], share[after]
    part = (level - low) / (high - low) if high > low else 0.0
    return float(times_s[after - 1] + part * (times_s[after] - times_s[after - 1]))


def judge_gripper(
    strokes: Sequence[Stroke], config: GripperConfig, seen: Sequence[tuple[float, bool]] = ()
) -> GripperFit:
    """Compares a gripper with what the robot's YAML says of it.

    Args:
        strokes: commands of 0 and 1 in turn.
        config: the YAML's.
        seen: (command, whether a person saw the gripper do it).

    Raises:
        CalibrateError: if there isn't a stroke each way.
    """
    opening, closing = ([stroke for stroke in strokes if stroke.command == end] for end in (1.0, 0.0))
    if not opening or not closing:
        raise CalibrateError("gripper", "there isn't a stroke each way", "open and close it")
    opened, closed = (float(np.median([stroke.end for stroke in ways])) for ways in (opening, closing))
    moved = [stroke for stroke in strokes if abs(stroke.travel) >= _MOVED]
    if not moved:
        text = f"gripper/state stays at {opened:.2f} whatever is commanded; is the gripper's driver active?"
        return GripperFit(closed, opened, 0.0, float("nan"), False, (Check("moves", False, text),))
    speed = _slowest(moved)
    dead_s = float(max(stroke.dead_time_s for stroke in moved))
    is_reversed = opened < closed
    fit = GripperFit(closed, opened, speed, dead_s, is_reversed, ())
    checks = (*_sense_checks(fit, seen), *_figure_checks(fit, config))
    return GripperFit(closed, opened, speed, dead_s, is_reversed, checks)


def _slowest(moved: Sequence[Stroke]) -> float:
    ways = ([stroke.speed_per_s for stroke in moved if (stroke.travel > 0.0) is is_up] for is_up in (True, False))
    return min(float(np.median(speeds)) for speeds in ways if speeds)


def _sense_checks(fit: GripperFit, seen: Sequence[tuple[float, bool]]) -> list[Check]:
    swap = "swap `closed` and `open` of the robot YAML's driver.gripper (or in your adapter)"
    if fit.is_reversed:
        text = f"told to open, gripper/state goes to {fit.opened:.2f}, told to close to {fit.closed:.2f}; {swap}"
        return [Check("sense", False, text)]
    text = f"gripper/state follows the command: {fit.closed:.2f} at 0, {fit.opened:.2f} at 1"
    checks = [Check("sense", True, text)]
    wrong = [command for command, is_right in seen if not is_right]
    if wrong:
        which = " and ".join("open" if command else "close" for command in sorted(set(wrong)))
        checks.append(Check("seen", False, f"told to {which}, it didn't; if it did the opposite, {swap}"))
    elif seen:
        checks.append(Check("seen", True, "it opened and closed as it was told"))
    else:
        text = "nobody has looked whether 1 is open and 0 closed: answer the questions, or --yes if you are sure"
        checks.append(Check("seen", False, text))
    return checks


def _figure_checks(fit: GripperFit, config: GripperConfig) -> list[Check]:
    agrees = abs(fit.speed_per_s - config.speed_per_s) <= _SPEED_AGREES * fit.speed_per_s
    speed = f"{fit.speed_per_s:.2f} openings/s, the YAML says gripper.speed_per_s {config.speed_per_s:g}"
    low, high = sorted((fit.closed, fit.opened))
    scale = "nothing between the fingers? else set the ends, `closed` and `open` in driver.gripper, to what it reaches"
    return [
        at_most("closed_end", abs(low), _RANGE, "closed, gripper/state is off 0 by", "", scale),
        at_most("open_end", abs(1.0 - high), _RANGE, "open, gripper/state is off 1 by", "", scale),
        # What is off is written.
        Check("speed", True, speed if agrees else f"{speed}; to be changed"),
        at_most("dead_time", fit.dead_time_s, _DEAD_LIMIT_S, "moves after", "s", "is its driver's rate low?"),
    ]


def speed_to_write(fit: GripperFit, config: GripperConfig) -> float | None:
    """What `gripper.speed_per_s` has to be, None where the YAML is right."""
    if not fit.speed_per_s > 0.0 or abs(fit.speed_per_s - config.speed_per_s) <= _SPEED_AGREES * fit.speed_per_s:
        return None
    return round(fit.speed_per_s, 2)
