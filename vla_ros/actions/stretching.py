"""A chunk timeline whose time can be slowed: for arms that scale the speed of whatever they carry out (a UR's slider).

The arm is then behind by more and more, so the time on which chunks are due runs as slowly as the arm moves. A stamp is
led back to what that time was then, so that a chunk begins where its observation saw the arm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.types import FloatArray, JointChunk, ToolChunk

_NS = 1e-9
# 1/s, of the scaling: from full speed to a stop in half a second.
_SLOPE = 2.0
# Below, velocities aren't led back to full speed: they would be divided by nearly nothing.
_LEAST = 0.05
# The oldest stamp that is led back.
_KEPT_NS = 5_000_000_000


class StretchedClock:
    """Time that runs at the speed an arm allows. At full speed it is the real one, less what was lost before."""

    def __init__(self) -> None:
        self.scaling = 1.0
        """Speed at which it runs now, 0 .. 1."""

        self._wanted, self._now_ns, self._lag_ns = 1.0, 0, 0
        self._history: deque[tuple[int, int]] = deque()

    @property
    def is_real(self) -> bool:
        """Whether it is the real time, and nothing has to be led back."""
        return self._lag_ns == 0 and self.scaling == 1.0

    def ask(self, scaling: float) -> None:
        """Runs at a speed in [0, 1] soon."""
        self._wanted = min(max(scaling, 0.0), 1.0)

    def advance(self, now_ns: int) -> None:
        """Goes on to a real time; one that has passed already changes nothing."""
        before_ns = self._now_ns
        if now_ns <= before_ns and before_ns - now_ns < _KEPT_NS:
            return
        self._now_ns = now_ns
        if self.is_real and self._wanted == 1.0:
            return
        passed_ns = now_ns - before_ns
        if not 0 <= passed_ns < _KEPT_NS:
            # After the beginning, or a jump of the clock, nothing is known of what was.
            self.scaling = self._wanted
            self.forget()
            return
        if not self._history:
            self._history.append((before_ns, self._lag_ns))
        step = _SLOPE * passed_ns * _NS
        self.scaling = min(max(self._wanted, self.scaling - step), self.scaling + step)
        self._lag_ns += round((1.0 - self.scaling) * passed_ns)
        self._history.append((now_ns, self._lag_ns))
        while self._history[0][0] < now_ns - _KEPT_NS:
            self._history.popleft()

    def forget(self) -> None:
        """What was lost so far no longer counts: nothing is in force that is due by it."""
        self._lag_ns = 0
        self._history.clear()

    def at(self, stamp_ns: int) -> int:
        """This time at a real time; of the future, as if it ran at full speed from now on."""
        if self.is_real:
            return stamp_ns
        if stamp_ns >= self._now_ns:
            return stamp_ns - self._lag_ns
        before_ns, lag_before_ns = stamp_ns, self._history[0][1] if self._history else self._lag_ns
        for now_ns, lag_ns in reversed(self._history):
            if now_ns <= stamp_ns:
                before_ns, lag_before_ns = now_ns, lag_ns
                break
        after = next(((t, lag) for t, lag in self._history if t > stamp_ns), None)
        if after is None or after[0] == before_ns or before_ns == stamp_ns:
            return stamp_ns - lag_before_ns
        share = (stamp_ns - before_ns) / (after[0] - before_ns)
        return stamp_ns - round(lag_before_ns + share * (after[1] - lag_before_ns))


class StretchedTimeline:
    """A chunk timeline on stretched time. At full speed it is that timeline, to the bit.

    Args:
        timeline: holds the chunks.
    """

    def __init__(self, timeline: ChunkTimeline) -> None:
        self._timeline, self._clock = timeline, StretchedClock()
        self._stamp_ns: int | None = None
        self._given: tuple[Sample, Sample] | None = None

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the chunk in force, in real time."""
        return self._stamp_ns

    @property
    def scaling(self) -> float:
        """Speed at which chunks are carried out now, 0 .. 1."""
        return self._clock.scaling

    def scale(self, scaling: float) -> None:
        """Carries chunks out at a part of their speed, in [0, 1], soon."""
        self._clock.ask(scaling)

    def clear(self) -> None:
        """Forgets what is in force."""
        self._timeline.clear()
        self._clock.forget()
        self._stamp_ns = self._given = None

    def offer(
        self,
        chunk: ToolChunk | JointChunk,
        now_ns: int,
        anchor: FloatArray,
        current: Sample | None,
        limits: OffsetLimits | None = None,
    ) -> None:
        """As `ChunkTimeline.offer`; all times are real ones."""
        self._clock.advance(now_ns)
        if self._clock.is_real:
            self._timeline.offer(chunk, now_ns, anchor, current, limits)
            self._stamp_ns = chunk.stamp_ns
            return
        stamp_ns, before = self._clock.at(chunk.stamp_ns), self._timeline
        if before.stamp_ns is not None and before.source == chunk.source and chunk.stamp_ns > (self._stamp_ns or 0):
            # Two stamps are one while time stands still; the newer one still counts.
            stamp_ns = max(stamp_ns, before.stamp_ns + 1)
        at_ns = self._clock.at(now_ns)
        self._timeline.offer(replace(chunk, stamp_ns=stamp_ns), at_ns, anchor, self._unscaled(current), limits)
        self._stamp_ns = chunk.stamp_ns

    def sample(self, time_ns: int) -> Sample | None:
        """What is due at a real time, None where no chunk is in force. The time goes on from call to call."""
        self._clock.advance(time_ns)
        if self._clock.is_real:
            return self._timeline.sample(time_ns)
        due = self._timeline.sample(self._clock.at(time_ns))
        if due is None:
            return None
        s = self._clock.scaling
        given = replace(due, velocity=s * due.velocity, acceleration=s * s * due.acceleration, stamp_ns=time_ns)
        self._given = (given, due)
        return given

    def _unscaled(self, current: Sample | None) -> Sample | None:
        """A motion as it would be at full speed."""
        if current is None:
            return None
        if self._given is not None and current is self._given[0]:
            return self._given[1]
        s = max(self._clock.scaling, _LEAST)
        stamp_ns = self._clock.at(current.stamp_ns)
        zero = np.zeros_like(current.acceleration)
        return replace(current, velocity=current.velocity / s, acceleration=zero, stamp_ns=stamp_ns)
