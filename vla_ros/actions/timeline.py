"""The chunk timeline: which pose or posture is due at a time, across chunks that arrive late and overlap."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from vla_ros.actions.decode import anchored_poses
from vla_ros.actions.path import DecayingOffset, OffsetLimits, SplinePath, angular_velocity, unwrapped_rotvecs
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray, JointChunk, ToolChunk

_NS = 1e-9


@dataclass(frozen=True)
class Sample:
    """What is due at a time.

    Attributes:
        T_base_tcp: (4, 4) for tool chunks, else None.
        positions: (n,) rad for joint chunks, else None.
        velocity: (6,) twist of the tcp in base axes, or (n,) joint velocities.
        acceleration: its derivative.
        gripper_opening: None where the chunk leaves the gripper alone.
        stamp_ns: when.
        is_exhausted: whether the last point and the lead over to the chunk have passed; the sample then rests.
    """

    T_base_tcp: FloatArray | None
    positions: FloatArray | None
    velocity: FloatArray
    acceleration: FloatArray
    gripper_opening: float | None
    stamp_ns: int
    is_exhausted: bool

    @property
    def is_finite(self) -> bool:
        values = (self.T_base_tcp, self.positions, self.velocity, self.acceleration)
        return all(np.isfinite(value).all() for value in values if value is not None)


class _Active:
    """A chunk turned into a path, its gripper steps and the offset that leads onto it."""

    def __init__(
        self,
        chunk: ToolChunk | JointChunk,
        path: SplinePath,
        R_reference: FloatArray | None,
        due_s: FloatArray,
        epoch_ns: int,
    ) -> None:
        self.stamp_ns, self.source = chunk.stamp_ns, chunk.source
        self.path, self.R_reference, self.epoch_ns = path, R_reference, epoch_ns
        self.openings = chunk.openings
        self.due_s = [float(time) for time in due_s]
        self.offset: DecayingOffset | None = None

    def opening(self, time_s: float) -> float | None:
        index = bisect_right(self.due_s, time_s) - 1
        if self.openings is None or index < 0:
            return None
        return float(self.openings[index])

    def sample(self, time_ns: int) -> Sample:
        time_s = (time_ns - self.epoch_ns) * _NS
        value, rate, rate2 = self.path.sample(time_s)
        lead_s = 0.0 if self.offset is None else self.offset.start_s + self.offset.duration_s
        exhausted = time_s >= max(self.path.end_s, lead_s)
        opening = self.opening(time_s)
        if self.R_reference is None:
            if self.offset is not None:
                e, de, dde = self.offset.sample(time_s)
                value, rate, rate2 = value + e, rate + de, rate2 + dde
            return Sample(None, value, rate, rate2, opening, time_ns, exhausted)
        p, velocity, acceleration = value[:3], rate.copy(), rate2.copy()
        R = rotations.rotvec_to_matrix(value[3:]) @ self.R_reference
        velocity[3:] = angular_velocity(value[3:], rate[3:])
        if self.offset is not None:
            e, de, dde = self.offset.sample(time_s)
            turn = rotations.rotvec_to_matrix(e[3:])
            p, R = p + e[:3], turn @ R
            velocity[:3] += de[:3]
            velocity[3:] = angular_velocity(e[3:], de[3:]) + turn @ velocity[3:]
            acceleration += dde
        return Sample(se3.make_pose(p, R), None, velocity, acceleration, opening, time_ns, exhausted)


class ChunkTimeline:
    """Holds the chunk in force and joins the next one to it.

    Args:
        max_age_s: oldest chunk, by its stamp, that is taken.
    """

    def __init__(self, max_age_s: float) -> None:
        self.max_age_s = max_age_s
        self._active: _Active | None = None

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the chunk in force."""
        return self._active.stamp_ns if self._active else None

    @property
    def source(self) -> str | None:
        """Source of the chunk in force."""
        return self._active.source if self._active else None

    def clear(self) -> None:
        """Forgets the chunk in force."""
        self._active = None

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
            ChunkError: if the chunk is malformed, too old, out of order, or entirely in the past.
        """
        age_s = (now_ns - chunk.stamp_ns) * _NS
        _check_form(chunk, anchor)
        if age_s > self.max_age_s:
            raise ChunkError(
                f"chunk of {chunk.source} is {age_s:.3f} s old (limit {self.max_age_s} s); "
                "is the policy or its host overloaded?"
            )
        if age_s < -self.max_age_s:
            raise ChunkError(
                f"chunk of {chunk.source} is stamped {-age_s:.3f} s in the future (limit {self.max_age_s} s); "
                "are the clocks of the two machines synchronised?"
            )
        if self._active is not None and self._active.source == chunk.source and chunk.stamp_ns <= self._active.stamp_ns:
            raise ChunkError(f"chunk of {chunk.source} is older than the one in force or the same; dropped")
        due_s = chunk.time_from_start_s
        if age_s >= due_s[-1]:
            raise ChunkError(
                f"all {len(due_s)} points of the chunk of {chunk.source} are late: "
                f"the last was due {age_s - due_s[-1]:.3f} s ago"
            )
        try:
            active = self._build(chunk, anchor)
        except ValueError as error:
            raise ChunkError(f"no path leads through the chunk of {chunk.source}: {error}") from error
        if current is not None and limits is not None:
            self._blend(active, current, limits)
        self._active = active

    def sample(self, time_ns: int) -> Sample | None:
        """What is due at a time, None where no chunk is in force."""
        return None if self._active is None else self._active.sample(time_ns)

    def _build(self, chunk: ToolChunk | JointChunk, anchor: FloatArray) -> _Active:
        # The anchor is no point of the path: what lies between it and the first point is the offset's to cover.
        due_s = chunk.time_from_start_s
        if isinstance(chunk, JointChunk):
            return _Active(chunk, SplinePath(due_s, chunk.positions), None, due_s, chunk.stamp_ns)
        poses = anchored_poses(chunk, anchor)
        R_reference = poses[0, :3, :3]
        values = np.hstack([poses[:, :3, 3], unwrapped_rotvecs(R_reference, poses[:, :3, :3])])
        return _Active(chunk, SplinePath(due_s, values), R_reference, due_s, chunk.stamp_ns)

    def _blend(self, active: _Active, current: Sample, limits: OffsetLimits) -> None:
        new = active.sample(current.stamp_ns)
        if new.positions is not None and current.positions is not None:
            value = current.positions - new.positions
        elif new.T_base_tcp is not None and current.T_base_tcp is not None:
            value = se3.pose_error(new.T_base_tcp, current.T_base_tcp)
        else:
            return
        velocity, acceleration = current.velocity - new.velocity, current.acceleration - new.acceleration
        start_s = (current.stamp_ns - active.epoch_ns) * _NS
        # Velocity that the limits can't take away before the path ends would carry the motion on when the path rests:
        # the other way, where it was the path that was faster. That much is left to the limits downstream.
        losable = 0.5 * limits.acceleration * max(0.0, active.path.end_s - start_s)
        velocity = np.clip(velocity, -losable, losable)
        try:
            active.offset = DecayingOffset(start_s, value, velocity, acceleration, limits)
        except ValueError as error:
            raise ChunkError(f"chunk of {active.source} can't be joined to the motion: {error}") from error


def _check_form(chunk: ToolChunk | JointChunk, anchor: FloatArray) -> None:
    """Refuses what no path can be led through."""
    where, due_s = f"chunk of {chunk.source}", chunk.time_from_start_s
    count = len(due_s)
    if count == 0 or not (np.all(np.isfinite(due_s)) and due_s[0] >= 0.0 and np.all(np.diff(due_s) > 0.0)):
        raise ChunkError(f"{where}: time_from_start {due_s.tolist()} must be at least 0 and increase")
    if isinstance(chunk, JointChunk):
        if chunk.positions.shape != (count, len(anchor)) or not np.all(np.isfinite(chunk.positions)):
            raise ChunkError(f"{where}: needs {count} x {len(anchor)} finite joint positions")
    elif len(chunk.transforms) != count or not se3.is_pose(chunk.transforms):
        raise ChunkError(f"{where}: needs {count} transforms that are finite rigid motions")
    elif chunk.T_base_anchor is not None and not se3.is_pose(chunk.T_base_anchor):
        raise ChunkError(f"{where}: its anchor isn't a finite rigid motion")
    openings = chunk.openings
    if openings is not None and not (len(openings) == count and np.all((openings >= 0.0) & (openings <= 1.0))):
        raise ChunkError(f"{where}: needs {count} gripper openings in [0, 1]")
