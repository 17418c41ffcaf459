"""The gripper's channel: openings as the points say, but nothing flutters between open and closed."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from vla_ros.types import FloatArray

_NEVER_NS = -(1 << 62)


@dataclass(frozen=True)
class GripperHysteresis:
    """When a change of sides, between open and closed, counts.

    Openings are never averaged. On one side they pass as they are, so a gripper that is led continuously follows. To
    the other side they pass when they stay there: what a chunk says of the time to come counts, so a change that a
    policy means isn't late.

    Attributes:
        closed_below: an opening below is on the closed side; between the two it stays on the side it was.
        open_above: an opening above is on the open side.
        persist_s: a stretch on the other side that is shorter is left out.
        dwell_s: time for which a gripper that has changed sides stays there, whatever later chunks say.
    """

    closed_below: float = 0.4
    open_above: float = 0.6
    persist_s: float = 0.1
    dwell_s: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.closed_below <= self.open_above <= 1.0:
            raise ValueError(
                f"closed_below {self.closed_below} and open_above {self.open_above} aren't in order in [0, 1]"
            )
        for key in ("persist_s", "dwell_s"):
            if not getattr(self, key) >= 0.0:
                raise ValueError(f"gripper {key} {getattr(self, key)} is negative")


@dataclass(frozen=True)
class _Step:
    """From a time on, this opening, on a side that was taken then or before."""

    time_ns: int
    opening: float
    is_open: bool
    flipped_ns: int


class GripperSchedule:
    """Openings by time.

    Args:
        steps: in order of time, at least one.
    """

    def __init__(self, steps: list[_Step]) -> None:
        self._steps = steps
        self._times = [step.time_ns for step in steps]

    def step_at(self, time_ns: int) -> _Step | None:
        """What is in force at a time, None before the first point."""
        index = bisect_right(self._times, time_ns) - 1
        return self._steps[index] if index >= 0 else None

    def opening(self, time_ns: int) -> float | None:
        """Opening at a time, None before the first point."""
        step = self.step_at(time_ns)
        return None if step is None else step.opening


def schedule(
    hysteresis: GripperHysteresis, due_ns: list[int], openings: FloatArray, now_ns: int, before: GripperSchedule | None
) -> GripperSchedule:
    """A chunk's openings from now on, led on from those in force.

    Args:
        hysteresis: when a change of sides counts.
        due_ns: (n,) when each point is due; the newest late one is in force now.
        openings: (n,) in [0, 1].
        now_ns: present time.
        before: of the chunk before, None to take the first opening at once.
    """
    first = max(0, bisect_right(due_ns, now_ns) - 1)
    last = before.step_at(now_ns) if before is not None else None
    steps = [_Step(now_ns, last.opening, last.is_open, last.flipped_ns)] if last is not None else []
    values = openings[first:].tolist()
    times = [max(now_ns, time_ns) for time_ns in due_ns[first:]] if last is not None else due_ns[first:]
    index = 0
    while index < len(values):
        if not steps:
            steps.append(
                _Step(
                    times[0], values[0], values[0] > 0.5 * (hysteresis.closed_below + hysteresis.open_above), _NEVER_NS
                )
            )
            index = 1
            continue
        here = steps[-1]
        end = index
        # A stretch on one side, as it would be if the gripper were there already.
        is_open = _side(hysteresis, values[index], here.is_open)
        while end < len(values) and _side(hysteresis, values[end], is_open) == is_open:
            end += 1
        start_ns, flipped_ns = times[index], here.flipped_ns
        if is_open != here.is_open:
            start_ns = max(start_ns, here.flipped_ns + round(hysteresis.dwell_s * 1e9))
            left_s = math.inf if end == len(values) else (times[end] - start_ns) * 1e-9
            if left_s < hysteresis.persist_s or left_s <= 0.0:
                index = end
                continue
            flipped_ns = start_ns
        for k in range(index, end):
            next_ns = times[k + 1] if k + 1 < end else None
            if next_ns is None or next_ns > start_ns:
                steps.append(_Step(max(times[k], start_ns), values[k], is_open, flipped_ns))
        index = end
    return GripperSchedule(steps)


def _side(hysteresis: GripperHysteresis, opening: float, was_open: bool) -> bool:
    return opening >= hysteresis.closed_below if was_open else opening > hysteresis.open_above
