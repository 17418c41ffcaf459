"""ROS messages to the core's types and back: time, poses, joint states, diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Transform, TransformStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from vla_ros.actions.wire import duration_s as duration_s
from vla_ros.actions.wire import from_transform as from_transform
from vla_ros.actions.wire import to_ns as to_ns
from vla_ros.errors import SensorError
from vla_ros.geometry import rotations
from vla_ros.robots.state_buffer import find_joints
from vla_ros.types import FloatArray, MotionState, RobotState, Verdict

_S = 1_000_000_000


def to_time(stamp_ns: int) -> Time:
    """ROS time from nanoseconds."""
    return Time(sec=stamp_ns // _S, nanosec=stamp_ns % _S)


def to_duration(duration_s: float) -> Duration:
    """A ROS duration from seconds."""
    ns = round(duration_s * _S)
    return Duration(sec=ns // _S, nanosec=ns % _S)


def header(stamp_ns: int, frame_id: str = "") -> Header:
    """A stamped header."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def to_row(T: FloatArray) -> FloatArray:
    """(4, 4) to (7,): translation and rotation (quat_xyzw)."""
    row = np.empty(7)
    row[:3], row[3:] = T[:3, 3], rotations.matrix_to_quat_xyzw(T[:3, :3])
    return row


def transform_of(row: FloatArray) -> Transform:
    """What `to_row` gives, as geometry_msgs/Transform."""
    message = Transform()
    p, q = message.translation, message.rotation
    p.x, p.y, p.z, q.x, q.y, q.z, q.w = row.tolist()
    return message


def to_transform(T: FloatArray) -> Transform:
    """(4, 4) to geometry_msgs/Transform."""
    return transform_of(to_row(T))


def to_transform_stamped(T: FloatArray, parent: str, child: str, stamp_ns: int) -> TransformStamped:
    """A TF edge."""
    return TransformStamped(header=header(stamp_ns, parent), child_frame_id=child, transform=to_transform(T))


class JointStateReader:
    """Picks a robot's joints, by exact name, out of JointState messages in any order.

    Args:
        joint_names: wanted order.
        topic: for the error text.
    """

    def __init__(self, joint_names: Sequence[str], topic: str) -> None:
        self._wanted, self._topic = tuple(joint_names), topic
        self._seen: tuple[str, ...] | None = None
        self._index = np.zeros(0, dtype=np.intp)

    def read(self, message: JointState, gripper_opening: float | None) -> RobotState:
        """The robot's state in a message.

        Raises:
            SensorError: if a joint is missing, named twice, or has no position or one that isn't finite.
        """
        names = tuple(message.name)
        if names != self._seen:
            self._index, self._seen = find_joints(names, self._wanted, self._topic), names
        positions = np.asarray(message.position, dtype=np.float64)
        if len(positions) != len(names):
            raise SensorError(f"{self._topic} has {len(positions)} positions for {len(names)} names")
        positions = positions[self._index]
        if not np.isfinite(positions).all():
            joint = self._wanted[int(np.argmin(np.isfinite(positions)))]
            raise SensorError(f"{self._topic}: position of {joint} isn't finite; is its encoder or driver broken?")
        velocities = np.asarray(message.velocity, dtype=np.float64)
        if len(velocities) != len(names):
            velocities = np.zeros(len(names))
        return RobotState(to_ns(message.header.stamp), positions, velocities[self._index], gripper_opening)


def to_joint_state(
    stamp_ns: int, names: Sequence[str], positions: FloatArray, velocities: FloatArray | None = None
) -> JointState:
    """sensor_msgs/JointState without efforts."""
    message = JointState(header=header(stamp_ns), name=list(names), position=positions.tolist())
    if velocities is not None:
        message.velocity = velocities.tolist()
    return message


_LEVELS = {
    MotionState.RUNNING: DiagnosticStatus.OK,
    MotionState.IDLE: DiagnosticStatus.OK,
    MotionState.HOLDING: DiagnosticStatus.OK,
    MotionState.STOPPED: DiagnosticStatus.WARN,
    MotionState.FAULT: DiagnosticStatus.ERROR,
}


def to_verdict_message(verdict: Verdict, stamp_ns: int, name: str, source: str) -> DiagnosticArray:
    """A verdict: state as the message, one key a limit that acted."""
    level = _LEVELS[verdict.state]
    if level == DiagnosticStatus.OK and verdict.state is MotionState.RUNNING and verdict.interventions:
        level = DiagnosticStatus.WARN
    values = {"source": source, **{item.limit: item.reason for item in verdict.interventions}}
    return to_diagnostics(stamp_ns, name, verdict.state.value, values, level)


def to_diagnostics(
    stamp_ns: int, name: str, message: str, values: Mapping[str, object], level: bytes = DiagnosticStatus.OK
) -> DiagnosticArray:
    """One status with its values as text."""
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id="vla_ros")
    status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticArray(header=header(stamp_ns), status=[status])


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
