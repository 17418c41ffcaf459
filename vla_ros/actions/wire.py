"""Chunks and targets out of messages, field by field as docs/design.md, sections 3 and 4, lay them down.

Whoever reads a message, off the wire or out of a bag, has its fields under the same names: so nothing here imports ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vla_ros.actions.chunk_bytes import ChunkFields, read_chunk_bytes
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import FloatArray, JointChunk, JointTarget, ToolChunk, ToolTarget

GRIPPER = "gripper"
TCP_DELTA, TCP_ABSOLUTE, ANCHOR = "tcp_delta", "tcp", "anchor"
_S = 1_000_000_000


def to_ns(time: Any) -> int:
    """Nanoseconds from ROS time."""
    return int(time.sec) * _S + int(time.nanosec)


def duration_s(duration: Any) -> float:
    """Seconds from a ROS duration."""
    return float(duration.sec + duration.nanosec / _S)


def from_transform(message: Any) -> FloatArray:
    """geometry_msgs/Transform to (4, 4).

    Raises:
        ValueError: if its rotation is none.
    """
    p, q = message.translation, message.rotation
    return se3.make_pose(np.array([p.x, p.y, p.z]), rotations.quat_xyzw_to_matrix(np.array([q.x, q.y, q.z, q.w])))


def from_rows(values: FloatArray) -> FloatArray:
    """(n, 7) translations and rotations (quat_xyzw) to (n, 4, 4).

    Raises:
        ValueError: if a rotation is none.
    """
    return se3.make_pose(values[:, :3], rotations.quat_xyzw_to_matrix(values[:, 3:]))


def from_tool_chunk_message(message: Any, source: str, tcp_frame: str, base_frame: str) -> ToolChunk:
    """Reads and checks a tool chunk.

    Raises:
        ChunkError: naming the field that is missing, non-finite, out of range or not understood.
    """
    names, frame_id = list(message.joint_names), message.header.frame_id
    frame = _tool_frame(names, frame_id, source, tcp_frame, base_frame)
    for index, point in enumerate(message.points):
        if len(point.transforms) != len(names):
            raise ChunkError(
                f"chunk of {source}: point {index} has {len(point.transforms)} transforms for joint_names {names}"
            )
    rows = [[_row(transform) for transform in point.transforms] for point in message.points]
    times_s = [duration_s(point.time_from_start) for point in message.points]
    return _tool_chunk(
        ChunkFields(to_ns(message.header.stamp), frame_id, names, np.array(rows), times_s), frame, source
    )


def from_tool_chunk_bytes(raw: bytes, source: str, tcp_frame: str, base_frame: str) -> ToolChunk | None:
    """The same from the message's bytes; None where they are laid out as ours never are.

    Raises:
        ChunkError: as above.
    """
    fields = read_chunk_bytes(raw)
    if fields is None:
        return None
    return _tool_chunk(fields, _tool_frame(fields.names, fields.frame_id, source, tcp_frame, base_frame), source)


def _tool_frame(names: list[str], frame_id: str, source: str, tcp_frame: str, base_frame: str) -> str:
    where = f"chunk of {source}"
    if not names or names[0] not in (TCP_DELTA, TCP_ABSOLUTE) or set(names[1:]) - {GRIPPER, ANCHOR}:
        raise ChunkError(f"{where}: joint_names {names}; must be tcp_delta or tcp, then gripper and anchor where given")
    if len(set(names)) != len(names):
        raise ChunkError(f"{where}: joint_names {names} name one thing twice")
    if names[0] == TCP_ABSOLUTE and frame_id != base_frame:
        raise ChunkError(f"{where}: absolute poses in frame {frame_id!r}; must be in the base frame {base_frame!r}")
    if frame_id not in (base_frame, tcp_frame):
        raise ChunkError(
            f"{where}: frame_id {frame_id!r}; must be the tcp's {tcp_frame!r} or the base's {base_frame!r}"
        )
    if names[0] == TCP_ABSOLUTE:
        return "absolute"
    return "base" if frame_id == base_frame else "tcp"


def _tool_chunk(fields: ChunkFields, frame: str, source: str) -> ToolChunk:
    where, names, values = f"chunk of {source}", fields.names, fields.transforms
    times_s = _check_times(fields.times_s, where)
    openings = _check_openings(values[:, names.index(GRIPPER), 0], where) if GRIPPER in names else None
    try:
        T = from_rows(values[:, 0])
        anchor = from_rows(values[:1, names.index(ANCHOR)])[0] if ANCHOR in names else None
    except ValueError as error:
        raise ChunkError(f"{where}: {error}") from error
    if not np.all(np.isfinite(T)) or (anchor is not None and not np.all(np.isfinite(anchor))):
        raise ChunkError(f"{where}: a transform isn't finite")
    return ToolChunk(fields.stamp_ns, frame, T, openings, times_s, source, anchor)


def _row(transform: Any) -> tuple[float, ...]:
    p, q = transform.translation, transform.rotation
    return p.x, p.y, p.z, q.x, q.y, q.z, q.w


def from_joint_chunk_message(message: Any, source: str, joint_names: Sequence[str]) -> JointChunk:
    """Reads and checks a joint chunk; joints are matched by exact name, in any order.

    Raises:
        ChunkError: naming what is wrong.
    """
    where = f"joint chunk of {source}"
    names = list(message.joint_names)
    wrong = [name for name in joint_names if names.count(name) != 1]
    unknown = sorted(set(names) - set(joint_names) - {GRIPPER})
    if wrong or unknown or names.count(GRIPPER) > 1:
        raise ChunkError(
            f"{where}: joint_names {names}; must be each of {list(joint_names)} once, and {GRIPPER} if wanted"
        )
    times_s = _check_times([duration_s(point.time_from_start) for point in message.points], where)
    index = [names.index(name) for name in joint_names]
    rows = []
    for number, point in enumerate(message.points):
        if len(point.positions) != len(names):
            raise ChunkError(f"{where}: point {number} has {len(point.positions)} positions for {len(names)} joints")
        rows.append(np.asarray(point.positions, dtype=np.float64))
    values = np.stack(rows)
    if not np.all(np.isfinite(values)):
        raise ChunkError(f"{where}: a position isn't finite")
    openings = _check_openings(values[:, names.index(GRIPPER)], where) if GRIPPER in names else None
    return JointChunk(to_ns(message.header.stamp), values[:, index], openings, times_s, source)


def from_target_message(message: Any, base_frame: str) -> ToolTarget:
    """Reads and checks a tool target.

    Raises:
        ChunkError: naming what is wrong.
    """
    chunk = from_tool_chunk_message(message, "target", base_frame, base_frame)
    if chunk.frame != "absolute" or len(chunk.transforms) != 1:
        raise ChunkError(f"target: needs one absolute pose named {TCP_ABSOLUTE!r} in {base_frame!r}")
    velocities = message.points[0].velocities
    twist = np.zeros(6)
    if velocities:
        linear, angular = velocities[0].linear, velocities[0].angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if not np.all(np.isfinite(twist)):
            raise ChunkError("target: its twist isn't finite")
    opening = None if chunk.openings is None else float(chunk.openings[0])
    return ToolTarget(chunk.stamp_ns, chunk.transforms[0], twist, opening)


def from_joint_target_message(message: Any, joint_names: Sequence[str]) -> JointTarget:
    """Reads and checks a joint target.

    Raises:
        ChunkError: naming what is wrong.
    """
    chunk = from_joint_chunk_message(message, "joint_target", joint_names)
    velocities = np.asarray(message.points[0].velocities, dtype=np.float64)
    if len(velocities) != len(message.joint_names):
        velocities = np.zeros(len(message.joint_names))
    if not np.all(np.isfinite(velocities)):
        raise ChunkError("joint_target: a velocity isn't finite")
    index = [list(message.joint_names).index(name) for name in joint_names]
    opening = None if chunk.openings is None else float(chunk.openings[0])
    return JointTarget(chunk.stamp_ns, chunk.positions[0], velocities[index], opening)


def _check_times(times_s: list[float], where: str) -> FloatArray:
    if not times_s:
        raise ChunkError(f"{where} has no points")
    if times_s[0] < 0.0 or any(b <= a for a, b in pairwise(times_s)):
        raise ChunkError(f"{where}: time_from_start {times_s} must be at least 0 and increase")
    return np.array(times_s)


def _check_openings(openings: FloatArray, where: str) -> FloatArray:
    if not np.all(np.isfinite(openings)) or np.any(openings < 0.0) or np.any(openings > 1.0):
        raise ChunkError(f"{where}: gripper opening {openings.tolist()} isn't in [0, 1]")
    return openings
