"""Commands as the messages of an arm's controller, and back for the simulated one."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Pose, PoseStamped, Transform, TwistStamped
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.control.sending import JointPoints
from vla_ros.errors import ConfigError
from vla_ros.nodes.messages import from_transform, header, to_ns, to_transform
from vla_ros.types import FloatArray

_S = 1_000_000_000


def to_trajectory_message(points: JointPoints, joint_names: Sequence[str]) -> JointTrajectory:
    """Points in time for joint_trajectory_controller."""
    message = JointTrajectory(header=header(points.stamp_ns), joint_names=list(joint_names))
    rows = zip(points.offsets_ns, points.positions, points.velocities, points.accelerations, strict=True)
    for offset_ns, positions, velocities, accelerations in rows:
        point = JointTrajectoryPoint()
        # Arrays are taken as they are; lists would be looked at number by number.
        point.positions = array("d", positions.tobytes())
        point.velocities = array("d", velocities.tobytes())
        point.accelerations = array("d", accelerations.tobytes())
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(offset_ns, _S)
        message.points.append(point)
    return message


def from_trajectory_message(
    message: JointTrajectory, joint_names: Sequence[str]
) -> tuple[list[int], FloatArray, FloatArray | None, FloatArray | None]:
    """Times of the points, ns of ROS time, and their (points, n) positions, velocities and accelerations.

    Raises:
        ConfigError: unless it has every joint once, by exact name in any order, and all points are of one form.
    """
    count = len(joint_names)
    start_ns = to_ns(message.header.stamp)
    times_ns = [start_ns + point.time_from_start.sec * _S + point.time_from_start.nanosec for point in message.points]
    if not times_ns:
        return [], np.zeros((0, count)), None, None
    names = list(message.joint_names)
    if sorted(names) != sorted(joint_names):
        raise ConfigError("joint trajectory", f"is of {names}", f"partial goals aren't taken; give {list(joint_names)}")
    index = [names.index(name) for name in joint_names]

    def column(field: str) -> FloatArray | None:
        rows = [getattr(point, field) for point in message.points]
        lengths = {len(row) for row in rows}
        if lengths == {0}:
            return None
        if lengths != {count}:
            raise ConfigError("joint trajectory", f"{field} of lengths {sorted(lengths)}", f"give {count} a point")
        return np.array(rows, dtype=np.float64)[:, index]

    positions = column("positions")
    if positions is None:
        raise ConfigError("joint trajectory", "has no positions", "give them; velocities alone aren't followed")
    return times_ns, positions, column("velocities"), column("accelerations")


def to_pose_message(T_base_tcp: FloatArray, base_frame: str, stamp_ns: int) -> PoseStamped:
    """The tcp's pose for a controller that solves for the joints."""
    transform = to_transform(T_base_tcp)
    pose = Pose(orientation=transform.rotation)
    pose.position.x, pose.position.y, pose.position.z = (float(value) for value in T_base_tcp[:3, 3])
    return PoseStamped(header=header(stamp_ns, base_frame), pose=pose)


def to_twist_message(twist: FloatArray, base_frame: str, stamp_ns: int) -> TwistStamped:
    """The tcp's twist, (6,) linear m/s and angular rad/s in base axes, for a servo."""
    message = TwistStamped(header=header(stamp_ns, base_frame))
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist.tolist()
    return message


def from_twist_message(message: TwistStamped, base_frame: str) -> FloatArray:
    """(6,) in base axes.

    Raises:
        ConfigError: if it is in another frame.
    """
    if message.header.frame_id != base_frame:
        raise ConfigError("tool command", f"is in frame {message.header.frame_id!r}", f"give it in {base_frame!r}")
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def from_pose_message(message: PoseStamped, base_frame: str) -> FloatArray:
    """T_base_tcp (4, 4).

    Raises:
        ConfigError: if it is in another frame or no pose.
    """
    if message.header.frame_id != base_frame:
        raise ConfigError("tool command", f"is in frame {message.header.frame_id!r}", f"give it in {base_frame!r}")
    transform = Transform(rotation=message.pose.orientation)
    place = message.pose.position
    transform.translation.x, transform.translation.y, transform.translation.z = place.x, place.y, place.z
    try:
        return from_transform(transform)
    except ValueError as error:
        raise ConfigError("tool command", str(error), "send a finite rigid motion") from error
