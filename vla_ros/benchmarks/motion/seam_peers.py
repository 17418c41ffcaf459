"""Other ways over a seam, re-stated from their public descriptions, for comparison."""

from __future__ import annotations

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.seams import Motion, mean_point
from vla_ros.actions.track import NS, Point, Sample, Track
from vla_ros.types import FloatArray

# 0.3 to this power is past what is seen of a chunk.
_DEEPEST = 6


class LinearBlend:
    """Goes over from the old motion to the new path along a straight line in time."""

    name = "linear"

    def __init__(self, duration_s: float = 0.2) -> None:
        self.duration_ns = round(duration_s / NS)

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """See Seam."""
        if before is None or current is None:
            return track
        if isinstance(before, _Fading) and current.stamp_ns >= before.full_ns:
            before = before.new
        return _Fading(before, track, current.stamp_ns, current.stamp_ns + self.duration_ns)


class _Fading:
    def __init__(self, old: Motion, new: Track, start_ns: int, full_ns: int) -> None:
        self.old, self.new, self.start_ns, self.full_ns = old, new, start_ns, full_ns

    def is_over(self, time_ns: int) -> bool:
        return time_ns >= self.full_ns and self.new.is_over(time_ns)

    def sample(self, time_ns: int) -> Point:
        if time_ns >= self.full_ns:
            return self.new.sample(time_ns)
        part = max(0.0, (time_ns - self.start_ns) / (self.full_ns - self.start_ns))
        return mean_point([self.old.sample(time_ns), self.new.sample(time_ns)], np.array([1.0 - part, part]))


class Mix:
    """0.3 of what was queued and 0.7 of the new chunk, where both say something.

    Source: lerobot, `weighted_average` of its asynchronous inference: `0.3 * old + 0.7 * new`.
    """

    name = "mix"

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """See Seam."""
        older = before.tracks if isinstance(before, _Mixed) else ()
        return _Mixed((*older[1 - _DEEPEST :], track))


class _Mixed:
    def __init__(self, tracks: tuple[Track, ...]) -> None:
        self.tracks = tracks

    def is_over(self, time_ns: int) -> bool:
        return self.tracks[-1].is_over(time_ns)

    def sample(self, time_ns: int) -> Point:
        speaking = [track for track in self.tracks if time_ns <= track.end_ns] or [self.tracks[-1]]
        return mean_point([track.sample(time_ns) for track in speaking], _mix_weights(len(speaking)))


def _mix_weights(count: int) -> FloatArray:
    """Weights of a chain of mixes, oldest first."""
    ages = np.arange(count - 1, -1, -1)
    return np.asarray(0.3**ages * np.where(ages < count - 1, 0.7, 1.0), dtype=np.float64)
