"""Motion of the target: towards a wanted velocity inside limits of acceleration and jerk, and along it in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ruckig

from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray

_NS = 1e-9
# Parts of a norm's limit for the axis along the change of velocity and the two across; their squares sum to 1.
_SHARES = np.array((0.9, np.sqrt(0.095), np.sqrt(0.095)))


@dataclass(frozen=True)
class Motion:
    """A tool that moves.

    Attributes:
        T_base_tcp: (4, 4).
        velocity: (6,) m/s, rad/s, in base axes.
        acceleration: (6,) its derivative.
    """

    T_base_tcp: FloatArray
    velocity: FloatArray
    acceleration: FloatArray

    @classmethod
    def at_rest(cls, T_base_tcp: FloatArray) -> Motion:
        """A tool that stands still."""
        return cls(T_base_tcp, np.zeros(6), np.zeros(6))


@dataclass(frozen=True)
class MotionLimits:
    """Norms: acceleration (m/s^2, rad/s^2) and jerk (m/s^3, rad/s^3)."""

    acceleration: tuple[float, float]
    jerk: tuple[float, float]

    def scaled(self, share: float) -> MotionLimits:
        """A part of them."""
        (a, alpha), (j, eta) = self.acceleration, self.jerk
        return MotionLimits((share * a, share * alpha), (share * j, share * eta))


class Leg:
    """A change of velocity, and what follows: the velocity reached goes on.

    Args:
        start: motion at the leg's time 0.
        wanted: (6,) velocity to be reached, in base axes.
        limits: of the change.

    Raises:
        ChunkError: for numbers that aren't finite.
    """

    def __init__(self, start: Motion, wanted: FloatArray, limits: MotionLimits) -> None:
        self._T = start.T_base_tcp
        self._parts = [
            _Part(start.velocity[rows], start.acceleration[rows], wanted[rows], a, j)
            for rows, a, j in zip((slice(0, 3), slice(3, 6)), limits.acceleration, limits.jerk, strict=True)
        ]
        self.duration_s = max(part.duration_s for part in self._parts)
        """Until the wanted velocity is reached."""

    def at(self, time_s: float) -> Motion:
        """The motion so long after the start."""
        (way, v, a), (turn, w, alpha) = (part.at(time_s) for part in self._parts)
        R = rotations.rotvec_to_matrix(turn) @ self._T[:3, :3]
        T = se3.make_pose(self._T[:3, 3] + way, R)
        return Motion(T, np.concatenate((v, w)), np.concatenate((a, alpha)))


class _Part:
    """The leg's translation or rotation: three axes of which the first is along the change of velocity.

    Source: Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation", RSS 2021 (ruckig).
    """

    def __init__(self, v: FloatArray, a: FloatArray, wanted: FloatArray, acceleration: float, jerk: float) -> None:
        change = wanted - v
        self._axes = np.eye(3)
        if float(np.linalg.norm(change)) > 1e-9:
            self._axes = np.asarray(np.linalg.qr(np.column_stack((change, np.eye(3))))[0])
        given = ruckig.InputParameter(3)
        given.control_interface = ruckig.ControlInterface.Velocity
        given.synchronization = ruckig.Synchronization.No
        given.current_position = [0.0, 0.0, 0.0]
        given.current_velocity = (self._axes.T @ v).tolist()
        given.current_acceleration = (self._axes.T @ a).tolist()
        given.target_velocity = (self._axes.T @ wanted).tolist()
        given.target_acceleration = [0.0, 0.0, 0.0]
        given.max_acceleration = (_SHARES * acceleration).tolist()
        given.max_jerk = (_SHARES * jerk).tolist()
        self._trajectory = ruckig.Trajectory(3)
        try:
            result = ruckig.Ruckig(3).calculate(given, self._trajectory)
        except ruckig.RuckigError as error:
            raise ChunkError(f"teleop: no way from velocity {v} to {wanted}: {error}") from error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise ChunkError(f"teleop: no way from velocity {v} to {wanted}: {result}")
        self.duration_s = float(self._trajectory.duration)

    def at(self, time_s: float) -> FloatArray:
        """(3, 3) way, velocity and acceleration."""
        return np.array(self._trajectory.at_time(max(0.0, time_s))) @ self._axes.T


class Path:
    """What a chunk says: on as the operator says for a while, then to rest.

    Args:
        start: motion at the beginning.
        start_ns: when that is.
        wanted: (6,) velocity in base axes.
        lead_s: how long to go on; 0 to brake at once.
        limits: of both.
        braking: of coming to rest; None for `limits`.
    """

    def __init__(
        self,
        start: Motion,
        start_ns: int,
        wanted: FloatArray,
        lead_s: float,
        limits: MotionLimits,
        braking: MotionLimits | None = None,
    ) -> None:
        self.start_ns, self._lead_s = start_ns, lead_s
        self._on = Leg(start, wanted, limits)
        self._to_rest = Leg(self._on.at(lead_s), np.zeros(6), limits if braking is None else braking)
        self.duration_s = lead_s + self._to_rest.duration_s
        """Until it rests."""

    def at(self, time_ns: int) -> Motion:
        """The motion at a time; before the start as at the start."""
        time_s = (time_ns - self.start_ns) * _NS
        if time_s < self._lead_s:
            return self._on.at(time_s)
        if time_s < self.duration_s:
            return self._to_rest.at(time_s - self._lead_s)
        return Motion.at_rest(self._to_rest.at(self.duration_s - self._lead_s).T_base_tcp)
