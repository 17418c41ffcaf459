"""Chunks and targets as ROS messages and back, field by field as docs/design.md, sections 3 and 4, lay them down."""

from __future__ import annotations

from collections.abc import Sequence

from geometry_msgs.msg import Transform, Twist
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import (
    JointTrajectory,
    JointTrajectoryPoint,
    MultiDOFJointTrajectory,
    MultiDOFJointTrajectoryPoint,
)

from vla_ros.actions.wire import (
    ANCHOR,
    GRIPPER,
    TCP_ABSOLUTE,
    TCP_DELTA,
    from_joint_chunk_message,
    from_joint_target_message,
    from_target_message,
    from_tool_chunk_bytes,
    from_tool_chunk_message,
)
from vla_ros.errors import ChunkError
from vla_ros.nodes.messages import header, to_duration, to_row, to_transform, transform_of
from vla_ros.types import FloatArray, JointChunk, JointTarget, ToolChunk, ToolTarget

__all__ = [
    "from_joint_chunk_message",
    "from_joint_target_message",
    "from_serialised_tool_chunk",
    "from_target_message",
    "from_tool_chunk_message",
    "target_message",
    "to_joint_chunk_message",
    "to_joint_target_message",
    "to_target_message",
    "to_tool_chunk_message",
]


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


def from_serialised_tool_chunk(raw: bytes, source: str, tcp_frame: str, base_frame: str) -> ToolChunk:
    """Reads and checks a tool chunk as it is on the wire.

    Raises:
        ChunkError: naming what is wrong, or that it isn't such a message.
    """
    chunk = from_tool_chunk_bytes(raw, source, tcp_frame, base_frame)
    if chunk is not None:
        return chunk
    try:
        message = deserialize_message(raw, MultiDOFJointTrajectory)
    except Exception as error:
        raise ChunkError(f"chunk of {source} isn't a MultiDOFJointTrajectory: {error}") from error
    return from_tool_chunk_message(message, source, tcp_frame, base_frame)


def to_joint_chunk_message(chunk: JointChunk, joint_names: Sequence[str]) -> JointTrajectory:
    """A joint chunk in the wire form; the gripper is a joint named `gripper`."""
    names = list(joint_names) + ([GRIPPER] if chunk.openings is not None else [])
    message = JointTrajectory(header=header(chunk.stamp_ns), joint_names=names)
    for index, (positions, time_s) in enumerate(zip(chunk.positions, chunk.time_from_start_s, strict=True)):
        values = positions.tolist() + ([float(chunk.openings[index])] if chunk.openings is not None else [])
        message.points.append(JointTrajectoryPoint(positions=values, time_from_start=to_duration(float(time_s))))
    return message


def _gripper_transform(opening: float) -> Transform:
    message = Transform()
    message.translation.x = opening
    return message


def to_target_message(target: ToolTarget, base_frame: str) -> MultiDOFJointTrajectory:
    """A tool target: one point, absolute pose and twist in base, then the gripper."""
    pose, twist = to_row(target.T_base_tcp), target.twist_tcp_in_base
    return target_message(target.stamp_ns, base_frame, pose, twist, target.gripper_opening)


def target_message(
    stamp_ns: int, base_frame: str, pose: FloatArray, twist: FloatArray, opening: float | None
) -> MultiDOFJointTrajectory:
    """A tool target out of its numbers: pose (7,), translation and quat_xyzw, and twist (6,), linear first."""
    point = MultiDOFJointTrajectoryPoint(transforms=[transform_of(pose)], velocities=[Twist()])
    v, w = point.velocities[0].linear, point.velocities[0].angular
    v.x, v.y, v.z, w.x, w.y, w.z = twist.tolist()
    names = [TCP_ABSOLUTE]
    if opening is not None:
        names.append(GRIPPER)
        point.transforms = [point.transforms[0], _gripper_transform(opening)]
    return MultiDOFJointTrajectory(header=header(stamp_ns, base_frame), joint_names=names, points=[point])


def to_joint_target_message(target: JointTarget, joint_names: Sequence[str]) -> JointTrajectory:
    """A joint target: one point with positions and velocities."""
    names, positions, velocities = list(joint_names), target.positions.tolist(), target.velocities.tolist()
    if target.gripper_opening is not None:
        names.append(GRIPPER)
        positions.append(target.gripper_opening)
        velocities.append(0.0)
    point = JointTrajectoryPoint(positions=positions, velocities=velocities)
    return JointTrajectory(header=header(target.stamp_ns), joint_names=names, points=[point])
