"""Strategies for the seam between two chunks: what the motion is when a chunk arrives while another is under way.

`switch` takes the new path at once, `ensemble` averages all chunks that have something to say of an instant, and
`blend` leads the motion in progress onto the new path without a step in position, velocity or acceleration.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vla_ros.actions.decay_law import DecayLaw
from vla_ros.actions.offset import Offset, PoseOffset, lead_over
from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.track import NS, Point, Sample, Track
from vla_ros.actions.turning import Vector, angular_motion, cross, rotvec_rates
from vla_ros.errors import UnknownNameError
from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray


class Motion(Protocol):
    """What is executed from a seam on."""

    def is_over(self, time_ns: int) -> bool:
        """Whether it has come to rest for good by then."""

    def sample(self, time_ns: int) -> Point:
        """The motion at a time."""


class Seam(Protocol):
    """A strategy. It keeps nothing between calls: all that is under way is in the motion."""

    name: str

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """The motion from now on.

        Args:
            before: the motion under way of the same source, None where there is none.
            track: the new chunk.
            current: the motion commanded last, None to start from the new chunk itself.
            limits: for what the strategy adds to the chunk's own motion; None to switch at once.

        Raises:
            ValueError: if the chunk can't be joined to the motion.
        """


class Switch:
    """The new chunk, at once."""

    name = "switch"

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """See Seam."""
        return track


class Ensemble:
    """The mean, on the manifold, of all chunks that have something to say of an instant, the oldest weighing most.

    Chunks that come and go leave steps; it is as smooth as it is because the mean of many moves little.

    Args:
        decay: chunk i, 0 the oldest, weighs exp(-decay i).
        most: chunks that are kept, the newest; each costs some 10 us a tick.

    Source: Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", RSS 2023 (ACT), temporal
    ensembling, whose decay is 0.01.
    """

    name = "ensemble"

    def __init__(self, decay: float = 0.01, most: int = 16) -> None:
        self.decay, self.most = decay, most

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """See Seam."""
        older = before.tracks if isinstance(before, Averaged) else ()
        now_ns = track.epoch_ns if current is None else current.stamp_ns
        kept = [one for one in older if one.end_ns > now_ns and one.is_tool == track.is_tool]
        return Averaged((*kept[-(self.most - 1) :], track), self.decay)


class Averaged:
    """The mean of chunks.

    Args:
        tracks: oldest first.
        decay: see Ensemble.
    """

    def __init__(self, tracks: tuple[Track, ...], decay: float) -> None:
        self.tracks, self._decay = tracks, decay

    def is_over(self, time_ns: int) -> bool:
        """See Motion."""
        return all(track.is_over(time_ns) for track in self.tracks)

    def sample(self, time_ns: int) -> Point:
        """See Motion."""
        speaking = [track for track in self.tracks if track.start_ns <= time_ns <= track.end_ns] or [self.tracks[-1]]
        points = [track.sample(time_ns) for track in speaking]
        return mean_point(points, np.exp(-self._decay * np.arange(len(points))))


class Blend:
    """The new chunk, and an offset that leads onto it from the motion in progress.

    The offset begins with the position, velocity and acceleration that the motion has over the new path, so there is no
    step, and vanishes as `lead_over` says. Chunks that confirm the motion change nothing.

    Args:
        half_s: time in which half of a small gap is closed, in position and of joints.
        rotation_half_s: the same of the tool's rotation.
    """

    name = "blend"

    def __init__(self, half_s: float, rotation_half_s: float) -> None:
        self.law, self.rotation_law = DecayLaw(half_s), DecayLaw(rotation_half_s)

    def join(self, before: Motion | None, track: Track, current: Sample | None, limits: OffsetLimits | None) -> Motion:
        """See Seam."""
        if current is None or limits is None or (current.T_base_tcp is not None) != track.is_tool:
            return track
        state = offset_state(track.sample(current.stamp_ns), current)
        # Velocity that the limits can't take away before the path ends would carry the motion on when the path rests:
        # the other way, where it was the path that was faster. That much is left to the limits downstream.
        losable = 0.5 * limits.acceleration * max(0.0, (track.end_ns - current.stamp_ns) * NS)
        state[1] = np.clip(state[1], -losable, losable)
        if not track.is_tool:
            return Led(track, lead_over(self.law, 0.0, state, limits, is_vector=False), current.stamp_ns)
        parts = [
            lead_over(law, 0.0, part, of_part, is_vector=True)
            for law, part, of_part in zip(
                (self.law, self.rotation_law), (state[:, :3], state[:, 3:]), limits.parts, strict=True
            )
        ]
        return Led(track, PoseOffset(*parts), current.stamp_ns)


class Led:
    """A path with an offset from it.

    Args:
        track: the path.
        offset: in position and rotation vector in base axes, or joints, to be composed with the path on the left.
        start_ns: when the offset's time is zero.
    """

    def __init__(self, track: Track, offset: Offset, start_ns: int) -> None:
        self._track, self._offset, self._start_ns = track, offset, start_ns

    def is_over(self, time_ns: int) -> bool:
        """See Motion."""
        return self._track.is_over(time_ns) and self._offset.has_gone((time_ns - self._start_ns) * NS)

    def sample(self, time_ns: int) -> Point:
        """See Motion."""
        point, elapsed_s = self._track.sample(time_ns), (time_ns - self._start_ns) * NS
        if self._offset.has_gone(elapsed_s):
            return point
        e = self._offset.sample(elapsed_s)
        if point.T_base_tcp is None:
            positions = None if point.positions is None else point.positions + e[0]
            return Point(None, positions, point.velocity + e[1], point.acceleration + e[2])
        T, velocity, acceleration = point.T_base_tcp, point.velocity, point.acceleration
        T[:3, 3] += e[0, :3]
        velocity[:3] += e[1, :3]
        acceleration[:3] += e[2, :3]
        turn = rotations.rotvec_to_matrix(e[0, 3:])
        (u, v, w), (du, dv, dw) = angular_motion(*e[:, 3:].tolist())
        T[:3, :3] = turn @ T[:3, :3]
        turned = turn @ velocity[3:]
        x, y, z = turned.tolist()
        acceleration[3:] = turn @ acceleration[3:]
        acceleration[3:] += (du + v * z - w * y, dv + w * x - u * z, dw + u * y - v * x)
        velocity[3:] = (u + x, v + y, w + z)
        return point


def offset_state(path: Point, current: Sample) -> FloatArray:
    """(3, d) offset of a motion over a path, and its two derivatives; the inverse of what `Led` composes."""
    if path.T_base_tcp is None or current.T_base_tcp is None:
        if path.positions is None or current.positions is None:
            raise ValueError("a path of the tool and a motion of the joints have no offset")
        here = (current.positions, current.velocity, current.acceleration)
        return np.array(here) - np.array((path.positions, path.velocity, path.acceleration))
    state = np.empty((3, 6))
    state[0] = se3.pose_error(path.T_base_tcp, current.T_base_tcp)
    state[1] = current.velocity - path.velocity
    state[2] = current.acceleration - path.acceleration
    turn = rotations.rotvec_to_matrix(state[0, 3:])
    turned = turn @ path.velocity[3:]
    velocity = current.velocity[3:] - turned
    acceleration = current.acceleration[3:] - turn @ path.acceleration[3:]
    acceleration = acceleration - np.array(cross(velocity.tolist(), turned.tolist()))
    state[1, 3:], state[2, 3:] = rotvec_rates(state[0, 3:].tolist(), _vector(velocity), _vector(acceleration))
    return state


def mean_point(points: list[Point], weights: FloatArray) -> Point:
    """The weighted mean of motions: rotations by their Karcher mean, velocities and accelerations as vectors.

    Source: Pennec, "Intrinsic Statistics on Riemannian Manifolds", J. Math. Imaging and Vision 2006, 4.6.
    """
    weights = weights / weights.sum()
    velocity = np.asarray(weights @ np.array([point.velocity for point in points]))
    acceleration = np.asarray(weights @ np.array([point.acceleration for point in points]))
    if points[0].T_base_tcp is None:
        return Point(None, weights @ np.array([point.positions for point in points]), velocity, acceleration)
    poses = np.array([point.T_base_tcp for point in points])
    T = poses[-1].copy()
    T[:3, 3] = weights @ poses[:, :3, 3]
    for _ in range(8):
        turn = weights @ rotations.matrix_to_rotvec(poses[:, :3, :3] @ T[:3, :3].T)
        T[:3, :3] = rotations.rotvec_to_matrix(turn) @ T[:3, :3]
        if float(turn @ turn) < 1e-20:
            break
    return Point(T, None, velocity, acceleration)


def make_seam(name: str, blend_half_s: float, blend_rotation_half_s: float) -> Seam:
    """The strategy of that name.

    Args:
        name: `blend`, `switch` or `ensemble`.
        blend_half_s: for `blend`.
        blend_rotation_half_s: for `blend`.
    """
    seams: dict[str, Seam] = {"switch": Switch(), "ensemble": Ensemble()}
    if name == Blend.name:
        return Blend(blend_half_s, blend_rotation_half_s)
    if name not in seams:
        raise UnknownNameError("seam", name, [*seams, Blend.name])
    return seams[name]


def _vector(v: FloatArray) -> Vector:
    x, y, z = v.tolist()
    return x, y, z
