"""The chunk timeline: which pose or posture is due at a time, across chunks that arrive late and overlap."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from vla_ros.actions.gripper import GripperHysteresis, GripperSchedule, schedule
from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.seams import Blend, Motion, Seam
from vla_ros.actions.track import NS, Sample, Track
from vla_ros.errors import ChunkError, LateChunkError
from vla_ros.geometry import se3
from vla_ros.types import FloatArray, JointChunk, ToolChunk

__all__ = ["ChunkTimeline", "Sample"]

_HALF_S, _ROTATION_HALF_S = 0.115, 0.25
# s, of a chunk: more is a slip of units, and times past all measure can't be counted in ns.
_LONGEST_S = 3600.0


class ChunkTimeline:
    """Holds the chunks in force and joins the next one to them.

    Args:
        max_age_s: oldest chunk, by its stamp, that is taken.
        seam: how chunks are joined; None for `blend`.
        hysteresis: of the gripper; None for the default's.
        actuation_latency_s: time from a command until the arm is there. Points are commanded that much before they are
            due, so that the arm, and not the command, is there in time.
    """

    def __init__(
        self,
        max_age_s: float,
        seam: Seam | None = None,
        hysteresis: GripperHysteresis | None = None,
        actuation_latency_s: float = 0.0,
    ) -> None:
        self.max_age_s = max_age_s
        self.seam = Blend(_HALF_S, _ROTATION_HALF_S) if seam is None else seam
        self.hysteresis = GripperHysteresis() if hysteresis is None else hysteresis
        self._lead_ns = round(actuation_latency_s / NS)
        self._track: Track | None = None
        self._motion: Motion | None = None
        self._gripper: GripperSchedule | None = None

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the chunk in force."""
        return self._track.stamp_ns if self._track else None

    @property
    def source(self) -> str | None:
        """Source of the chunk in force."""
        return self._track.source if self._track else None

    def clear(self) -> None:
        """Forgets what is in force."""
        self._track = self._motion = self._gripper = None

    def offer(
        self,
        chunk: ToolChunk | JointChunk,
        now_ns: int,
        anchor: FloatArray,
        current: Sample | None,
        limits: OffsetLimits | None = None,
    ) -> None:
        """Takes a chunk, drops what of it is late, and leads the present motion onto the rest.

        Args:
            chunk: decoded, in wire form.
            now_ns: present time on the clock of the stamps.
            anchor: (4, 4) tcp pose, or (n,) joint positions, at the chunk's stamp.
            current: the motion commanded last, None to start from the path itself.
            limits: for leading over to the new chunk; None to switch to it at once.

        Raises:
            ChunkError: if the chunk is malformed, too old, out of order, or entirely in the past; nothing changes then.
        """
        check_form(chunk, anchor)
        self._check_time(chunk, now_ns)
        before = self._track
        if before is not None and before.source == chunk.source and chunk.stamp_ns <= before.stamp_ns:
            raise ChunkError(f"chunk of {chunk.source} is older than the one in force or the same; dropped")
        follows = before is not None and before.source == chunk.source
        try:
            track = Track(chunk, anchor, chunk.stamp_ns - self._lead_ns)
        except ValueError as error:
            raise ChunkError(f"no path leads through the chunk of {chunk.source}: {error}") from error
        try:
            motion = self.seam.join(self._motion if follows else None, track, current, limits)
        except ValueError as error:
            raise ChunkError(f"chunk of {chunk.source} can't be joined to the motion: {error}") from error
        if chunk.openings is not None:
            due_ns = [track.epoch_ns + round(time / NS) for time in chunk.time_from_start_s.tolist()]
            before_ns = now_ns if current is None else current.stamp_ns
            self._gripper = schedule(
                self.hysteresis, due_ns, chunk.openings, before_ns, self._gripper if follows else None
            )
        else:
            self._gripper = None
        self._track, self._motion = track, motion

    def sample(self, time_ns: int) -> Sample | None:
        """What is due at a time, None where no chunk is in force."""
        motion = self._motion
        if motion is None:
            return None
        point = motion.sample(time_ns)
        opening = None if self._gripper is None else self._gripper.opening(time_ns)
        return Sample(*point, opening, time_ns, motion.is_over(time_ns))

    def committed(self, now_ns: int, delay_s: float, period_s: float) -> ToolChunk | JointChunk | None:
        """The points that will be executed before an answer to an observation of now can act: a policy that inpaints
        goes on from these (real-time chunking's prefix), and its answer then passes without a bend.

        Args:
            now_ns: the observation's stamp.
            delay_s: expected time from there to the answer's first effect.
            period_s: between two points.

        Returns:
            Absolute poses, or postures, from now on, every period, past the delay by less than one; None where no
            chunk is in force.
        """
        if self._track is None or not period_s > 0.0:
            return None
        count = 1 + max(0, math.ceil(delay_s / period_s - 1e-9))
        times_s = np.asarray(period_s * np.arange(count), dtype=np.float64)
        samples = [self.sample(now_ns + round(time / NS) - self._lead_ns) for time in times_s.tolist()]
        found = [sample for sample in samples if sample is not None]
        openings = [sample.gripper_opening for sample in found]
        known = None if None in openings else np.array(openings, dtype=np.float64)
        if found[0].positions is not None:
            return JointChunk(
                now_ns, np.array([sample.positions for sample in found]), known, times_s, self._track.source
            )
        poses = np.array([sample.T_base_tcp for sample in found])
        return ToolChunk(now_ns, "absolute", poses, known, times_s, self._track.source)

    def _check_time(self, chunk: ToolChunk | JointChunk, now_ns: int) -> None:
        age_s = (now_ns - chunk.stamp_ns) * NS
        if age_s > self.max_age_s:
            raise LateChunkError(
                f"chunk of {chunk.source} is {age_s:.3f} s old (limit {self.max_age_s} s); "
                "is the policy or its host overloaded?"
            )
        if age_s < -self.max_age_s:
            raise ChunkError(
                f"chunk of {chunk.source} is stamped {-age_s:.3f} s in the future (limit {self.max_age_s} s); "
                "are the clocks of the two machines synchronised?"
            )
        late_s = age_s + self._lead_ns * NS - float(chunk.time_from_start_s[-1])
        if late_s >= 0.0:
            raise LateChunkError(
                f"all {len(chunk.time_from_start_s)} points of the chunk of {chunk.source} are late: "
                f"the last was due {late_s:.3f} s ago"
            )


def check_form(chunk: ToolChunk | JointChunk, anchor: FloatArray) -> None:
    """Refuses what no path can be led through.

    Raises:
        ChunkError: with what is wrong.
    """
    where, due_s = f"chunk of {chunk.source}", chunk.time_from_start_s
    count, times_s = len(due_s), due_s.tolist()
    # What isn't a number compares as false.
    if count == 0 or not (times_s[0] >= 0.0 and all(b > a for a, b in pairwise(times_s)) and times_s[-1] < math.inf):
        raise ChunkError(f"{where}: time_from_start {times_s} must be at least 0 and increase")
    if due_s[-1] > _LONGEST_S:
        raise ChunkError(f"{where}: its last point is due {due_s[-1]:g} s after the first (limit {_LONGEST_S:g} s)")
    if isinstance(chunk, JointChunk):
        if chunk.positions.shape != (count, len(anchor)) or not np.isfinite(chunk.positions).all():
            raise ChunkError(f"{where}: needs {count} x {len(anchor)} finite joint positions")
    elif len(chunk.transforms) != count or not se3.is_pose(chunk.transforms):
        raise ChunkError(f"{where}: needs {count} transforms that are finite rigid motions")
    elif chunk.T_base_anchor is not None and not se3.is_pose(chunk.T_base_anchor):
        raise ChunkError(f"{where}: its anchor isn't a finite rigid motion")
    openings = chunk.openings
    if openings is not None and not (len(openings) == count and bool(((openings >= 0.0) & (openings <= 1.0)).all())):
        raise ChunkError(f"{where}: needs {count} gripper openings in [0, 1]")
