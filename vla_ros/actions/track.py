"""One chunk as a path in time, and what a motion says of an instant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vla_ros.actions.decode import anchored_poses
from vla_ros.actions.path import SplinePath, unwrapped_rotvecs
from vla_ros.actions.turning import angular_motion
from vla_ros.geometry import rotations
from vla_ros.types import FloatArray, JointChunk, ToolChunk

NS = 1e-9
_ORIGIN = np.eye(4)


class Point(NamedTuple):
    """A motion at an instant.

    Attributes:
        T_base_tcp: (4, 4) of the tool, else None.
        positions: (n,) rad of the joints, else None.
        velocity: (6,) twist of the tcp in base axes, or (n,) joint velocities.
        acceleration: its derivative.
    """

    T_base_tcp: FloatArray | None
    positions: FloatArray | None
    velocity: FloatArray
    acceleration: FloatArray


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
        return all(math.isfinite(sum(value.ravel().tolist())) for value in values if value is not None)


class Track:
    """A chunk's points as a path on the clock of the stamps.

    Args:
        chunk: of sound form.
        anchor: (4, 4) tcp pose, or (n,) joint positions, at the chunk's stamp.
        epoch_ns: when `time_from_start_s` is zero.

    Raises:
        ValueError: if no path leads through the points.
    """

    def __init__(self, chunk: ToolChunk | JointChunk, anchor: FloatArray, epoch_ns: int) -> None:
        self.stamp_ns, self.source, self.epoch_ns = chunk.stamp_ns, chunk.source, epoch_ns
        # The anchor is no point of the path: what lies between it and the first point is the seam's to cover.
        due_s = chunk.time_from_start_s
        self.R_reference: FloatArray | None = None
        if isinstance(chunk, JointChunk):
            self._path = SplinePath(due_s, chunk.positions)
        else:
            poses = anchored_poses(chunk, anchor)
            self.R_reference = poses[0, :3, :3]
            values = np.empty((len(poses), 6))
            values[:, :3], values[:, 3:] = poses[:, :3, 3], unwrapped_rotvecs(self.R_reference, poses[:, :3, :3])
            self._path = SplinePath(due_s, values)
        self.start_ns = epoch_ns + round(self._path.start_s / NS)
        self.end_ns = epoch_ns + round(self._path.end_s / NS)

    @property
    def is_tool(self) -> bool:
        """Whether it moves the tool, else the joints."""
        return self.R_reference is not None

    def is_over(self, time_ns: int) -> bool:
        """Whether its last point has passed."""
        return time_ns >= self.end_ns

    def sample(self, time_ns: int) -> Point:
        """The path at a time."""
        value = self._path.sample((time_ns - self.epoch_ns) * NS)
        if self.R_reference is None:
            return Point(None, value[0], value[1], value[2])
        T, velocity, acceleration = _ORIGIN.copy(), value[1].copy(), value[2].copy()
        T[:3, 3] = value[0, :3]
        T[:3, :3] = rotations.rotvec_to_matrix(value[0, 3:]) @ self.R_reference
        velocity[3:], acceleration[3:] = angular_motion(*value[:, 3:].tolist())
        return Point(T, None, velocity, acceleration)
