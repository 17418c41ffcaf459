"""What the selected source itself wanted at a time: its chunk in force, before the filter."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from vla_ros.actions.decode import anchored_poses
from vla_ros.contract import ActionSpec
from vla_ros.errors import SensorError
from vla_ros.geometry import se3
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.executed import pose_vector
from vla_ros.recording.recorded import RecordedChunk, RecordedEpisode
from vla_ros.recording.spans import Spans
from vla_ros.types import FloatArray, JointChunk, ToolChunk

# Of a period: times are rounded to ns on their way.
_SLACK_NS = 1000


class WantedActions:
    """Asks for the selected source's own actions by time, in the form in which a contract acts.

    Args:
        episode: what was recorded.
        arm: of that episode.
        spans: likewise.
        spec: tool or joint space, with or without a gripper.
    """

    def __init__(self, episode: RecordedEpisode, arm: RecordedArm, spans: Spans, spec: ActionSpec) -> None:
        self._arm, self._spans, self._spec = arm, spans, spec
        self._period_ns = round(spec.period_s * 1e9)
        self._by_source: dict[str, list[RecordedChunk]] = {}
        for chunk in episode.chunks:
            self._by_source.setdefault(chunk.chunk.source, []).append(chunk)
        reaches = [int(_due_ns(chunk.chunk)[-1]) - chunk.received_ns for chunk in episode.chunks]
        self._reach_ns = max(reaches, default=0)
        self._absolute: dict[int, FloatArray | None] = {}

    def at(self, stamp_ns: int) -> FloatArray | None:
        """The action, None where the source said nothing for that time, or nothing that the contract's form can hold.

        It is of the newest chunk that had come by then and whose points reach that time, between its neighbours; up to
        a period before its first point, that point.
        """
        chunk = self._in_force(stamp_ns)
        if chunk is None:
            return None
        values = self._values(chunk)
        if values is None:
            return None
        times_ns = _due_ns(chunk)
        place = float(np.interp(stamp_ns - times_ns[0], times_ns - times_ns[0], np.arange(len(times_ns))))
        index = min(int(place), len(values) - 1)
        fraction = place - index
        arm = values[index]
        if fraction > 0.0:
            after = values[index + 1]
            arm = se3.interpolate(arm, after, fraction) if arm.ndim == 2 else arm + fraction * (after - arm)
        vector = pose_vector(arm) if arm.ndim == 2 else arm
        if not self._spec.has_gripper:
            return np.asarray(vector)
        if chunk.openings is None:
            opening = self._arm.commanded_opening(stamp_ns)
            return None if opening is None else np.append(vector, opening)
        # A gripper goes where the next point says, and doesn't stop half way to it.
        return np.append(vector, chunk.openings[min(int(np.ceil(place - 1e-9)), len(values) - 1)])

    def _in_force(self, stamp_ns: int) -> ToolChunk | JointChunk | None:
        source = self._spans.source(stamp_ns)
        since_ns = self._spans.source_since_ns(stamp_ns)
        chunks = self._by_source.get(source, [])
        end = bisect_right(chunks, stamp_ns, key=lambda heard: heard.received_ns)
        begin = bisect_left(chunks, stamp_ns - self._reach_ns - _SLACK_NS, key=lambda heard: heard.received_ns)
        for heard in reversed(chunks[begin:end]):
            if since_ns <= heard.received_ns:
                times_ns = _due_ns(heard.chunk)
                first_ns = times_ns[0] - self._period_ns - _SLACK_NS
                if first_ns <= stamp_ns <= times_ns[-1] + _SLACK_NS:
                    return heard.chunk
        return None

    def _values(self, chunk: ToolChunk | JointChunk) -> FloatArray | None:
        """Its points, absolute, in the contract's space; None where that can't be."""
        key = id(chunk)
        if key not in self._absolute:
            self._absolute[key] = self._make_absolute(chunk)
        return self._absolute[key]

    def _make_absolute(self, chunk: ToolChunk | JointChunk) -> FloatArray | None:
        is_tool = self._spec.space == "tool"
        if isinstance(chunk, JointChunk):
            return np.array([self._arm.tcp(q) for q in chunk.positions]) if is_tool else chunk.positions
        if not is_tool:
            return None
        if chunk.frame == "absolute" or chunk.T_base_anchor is not None:
            return anchored_poses(chunk, np.eye(4))
        try:
            return anchored_poses(chunk, self._arm.tcp(self._arm.state_at(chunk.stamp_ns).positions))
        except SensorError:
            return None


def _due_ns(chunk: ToolChunk | JointChunk) -> FloatArray:
    return np.asarray(chunk.stamp_ns + np.round(chunk.time_from_start_s * 1e9).astype(np.int64))
