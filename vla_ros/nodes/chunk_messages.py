"""Chunks and targets as ROS messages and back, field by field as docs/design.md, sections 3 and 4, lay them down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from geometry_msgs.msg import Transform, Twist
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import (
    JointTrajectory,
    JointTrajectoryPoint,
    MultiDOFJointTrajectory,
    MultiDOFJointTrajectoryPoint,
)

from vla_ros.errors import ChunkError
from vla_ros.nodes.chunk_wire import WireChunk, read_wire_chunk
from vla_ros.nodes.messages import duration_s, from_rows, header, to_duration, to_ns, to_transform
from vla_ros.types import FloatArray, JointChunk, JointTarget, ToolChunk, ToolTarget

GRIPPER = "gripper"
TCP_DELTA, TCP_ABSOLUTE, ANCHOR = "tcp_delta", "tcp", "anchor"


def to_tool_chunk_message(chunk: ToolChunk, tcp_frame: str, base_frame: str) -> MultiDOFJointTrajectory:
    """A tool chunk in the wire form of section 4."""
    frame_id = tcp_frame if chunk.frame == "tcp" else base_frame
    names = [TCP_ABSOLUTE if chunk.frame == "absolute" else TCP_DELTA, GRIPPER]
    if chunk.T_base_anchor is not None:
        names.append(ANCHOR)
    if chunk.openings is None:
        names.remove(GRIPPER)
    message = MultiDOFJointTrajectory(header=header(chunk.stamp_ns, frame_id), joint_names=names)
    # What is the same in several points is one object: making them is most of what this costs.
    openings = [] if chunk.openings is None else chunk.openings.tolist()
    grippers = {opening: _gripper_transform(opening) for opening in set(openings)}
    anchor = [] if chunk.T_base_anchor is None else [to_transform(chunk.T_base_anchor)]
    for index, (T, time_s) in enumerate(zip(chunk.transforms, chunk.time_from_start_s, strict=True)):
        transforms = [to_transform(T), *([grippers[openings[index]]] if openings else []), *anchor]
        message.points.append(
            MultiDOFJointTrajectoryPoint(transforms=transforms, time_from_start=to_duration(float(time_s)))
        )
    return message


def from_tool_chunk_message(
    message: MultiDOFJointTrajectory, source: str, tcp_frame: str, base_frame: str
) -> ToolChunk:
    """Reads and checks a tool chunk.

    Raises:
        ChunkError: naming the field that is missing, non-finite, out of range or not understood.
    """
    names = list(message.joint_names)
    frame = _tool_frame(names, message.header.frame_id, source, tcp_frame, base_frame)
    if not message.points:
        raise ChunkError(f"chunk of {source} has no points")
    for index, point in enumerate(message.points):
        if len(point.transforms) != len(names):
            raise ChunkError(
                f"chunk of {source}: point {index} has {len(point.transforms)} transforms for joint_names {names}"
            )
    rows = [[_transform_row(transform) for transform in point.transforms] for point in message.points]
    times_s = [duration_s(point.time_from_start) for point in message.points]
    wire = WireChunk(to_ns(message.header.stamp), message.header.frame_id, names, np.array(rows), times_s)
    return _tool_chunk(wire, frame, source)


def from_serialised_tool_chunk(raw: bytes, source: str, tcp_frame: str, base_frame: str) -> ToolChunk:
    """The same from a serialised message.

    Raises:
        ChunkError: as above, or if it isn't such a message.
    """
    wire = read_wire_chunk(raw)
    if wire is not None:
        return _tool_chunk(wire, _tool_frame(wire.names, wire.frame_id, source, tcp_frame, base_frame), source)
    try:
        message = deserialize_message(raw, MultiDOFJointTrajectory)
    except Exception as error:
        raise ChunkError(f"chunk of {source} isn't a MultiDOFJointTrajectory: {error}") from error
    return from_tool_chunk_message(message, source, tcp_frame, base_frame)


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


def _tool_chunk(wire: WireChunk, frame: str, source: str) -> ToolChunk:
    """What both ways of reading have in common: the checks of the numbers."""
    where, names, values = f"chunk of {source}", wire.names, wire.transforms
    times_s = _check_times(wire.times_s, where)
    openings = _check_openings(values[:, names.index(GRIPPER), 0], where) if GRIPPER in names else None
    try:
        T = from_rows(values[:, 0])
        anchor = from_rows(values[:1, names.index(ANCHOR)])[0] if ANCHOR in names else None
    except ValueError as error:
        raise ChunkError(f"{where}: {error}") from error
    if not np.all(np.isfinite(T)) or (anchor is not None and not np.all(np.isfinite(anchor))):
        raise ChunkError(f"{where}: a transform isn't finite")
    return ToolChunk(wire.stamp_ns, frame, T, openings, times_s, source, anchor)


def _transform_row(message: Transform) -> tuple[float, ...]:
    p, q = message.translation, message.rotation
    return p.x, p.y, p.z, q.x, q.y, q.z, q.w


def to_joint_chunk_message(chunk: JointChunk, joint_names: Sequence[str]) -> JointTrajectory:
    """A joint chunk in the wire form; the gripper is a joint named `gripper`."""
    names = list(joint_names) + ([GRIPPER] if chunk.openings is not None else [])
    message = JointTrajectory(header=header(chunk.stamp_ns), joint_names=names)
    for index, (positions, time_s) in enumerate(zip(chunk.positions, chunk.time_from_start_s, strict=True)):
        values = positions.tolist() + ([float(chunk.openings[index])] if chunk.openings is not None else [])
        message.points.append(JointTrajectoryPoint(positions=values, time_from_start=to_duration(float(time_s))))
    return message


def from_joint_chunk_message(message: JointTrajectory, source: str, joint_names: Sequence[str]) -> JointChunk:
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


def _gripper_transform(opening: float) -> Transform:
    message = Transform()
    message.translation.x = opening
    return message


def to_target_message(target: ToolTarget, base_frame: str) -> MultiDOFJointTrajectory:
    """A tool target: one point, absolute pose and twist in base, then the gripper."""
    point = MultiDOFJointTrajectoryPoint(transforms=[to_transform(target.T_base_tcp)])
    twist = Twist()
    v = target.twist_tcp_in_base.tolist()
    twist.linear.x, twist.linear.y, twist.linear.z = v[:3]
    twist.angular.x, twist.angular.y, twist.angular.z = v[3:]
    point.velocities = [twist]
    names = [TCP_ABSOLUTE]
    if target.gripper_opening is not None:
        names.append(GRIPPER)
        point.transforms = [point.transforms[0], _gripper_transform(target.gripper_opening)]
    return MultiDOFJointTrajectory(header=header(target.stamp_ns, base_frame), joint_names=names, points=[point])


def from_target_message(message: MultiDOFJointTrajectory, base_frame: str) -> ToolTarget:
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


def to_joint_target_message(target: JointTarget, joint_names: Sequence[str]) -> JointTrajectory:
    """A joint target: one point with positions and velocities."""
    names, positions, velocities = list(joint_names), target.positions.tolist(), target.velocities.tolist()
    if target.gripper_opening is not None:
        names.append(GRIPPER)
        positions.append(target.gripper_opening)
        velocities.append(0.0)
    point = JointTrajectoryPoint(positions=positions, velocities=velocities)
    return JointTrajectory(header=header(target.stamp_ns), joint_names=names, points=[point])


def from_joint_target_message(message: JointTrajectory, joint_names: Sequence[str]) -> JointTarget:
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
