"""Which topics are recorded, by their names relative to the stack's namespace, and their types."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vla_ros.contract import Rig

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
STRING = "std_msgs/msg/String"
EVENT_TOPIC = "episode/event"
TRUTH_TOPIC = "sim/ground_truth"
COMPRESSED_ENDING = "/compressed"
"""What image_transport adds to an image's topic for its compressed form."""

_TOOL, _JOINTS = "trajectory_msgs/msg/MultiDOFJointTrajectory", "trajectory_msgs/msg/JointTrajectory"
_JOINT_STATE, _DIAGNOSTICS = "sensor_msgs/msg/JointState", "diagnostic_msgs/msg/DiagnosticArray"
_TF = "tf2_msgs/msg/TFMessage"

FIXED = {
    "joint_states": _JOINT_STATE,
    "/tf": _TF,
    "/tf_static": _TF,
    "robot_description": STRING,
    "task": STRING,
    "teleop/action_chunk": _TOOL,
    "teleop/joint_chunk": _JOINTS,
    "target": _TOOL,
    "joint_target": _JOINTS,
    "joint_command": _JOINT_STATE,
    "gripper/command": "std_msgs/msg/Float64",
    "gripper/state": _JOINT_STATE,
    "safety/verdict": _DIAGNOSTICS,
    TRUTH_TOPIC: _TF,
    EVENT_TOPIC: STRING,
    "/diagnostics": _DIAGNOSTICS,
}
"""By name relative to the namespace, absolute for those that have none."""
OF_A_SOURCE = {"action_chunk": _TOOL, "joint_chunk": _JOINTS, "observed": STRING}
"""Last part of the topics of a policy or another source, and their types."""

_POLICY = re.compile(r"policies/(?P<policy>[^/]+)/(?P<what>[^/]+)")


@dataclass(frozen=True)
class RecordedTopic:
    """A topic that belongs into every bag if somebody publishes it.

    Attributes:
        name: relative to the namespace; absolute for the few that have none.
        type: of its messages, `package/msg/Name`.
        is_required: whether a bag without it is of no use.
        rate_hz: what the rig says of its rate; 0 where it says nothing.
    """

    name: str
    type: str
    is_required: bool = False
    rate_hz: float = 0.0


def fixed_topics(rig: Rig) -> tuple[RecordedTopic, ...]:
    """The topics of a cell whose names are known beforehand; those of its policies are `policy_topic`'s."""
    cameras = []
    for camera in rig.cameras.values():
        cameras.append(RecordedTopic(camera.topic, IMAGE, is_required=True, rate_hz=camera.rate_hz))
        cameras.append(RecordedTopic(camera.info_topic, CAMERA_INFO))
    fixed = [RecordedTopic(name, kind, is_required=name == "joint_states") for name, kind in FIXED.items()]
    return (*cameras, *fixed)


def policy_topic(name: str) -> tuple[str, str] | None:
    """The policy and the type of a policy's topic, None for any other.

    Args:
        name: relative to the namespace.
    """
    match = _POLICY.fullmatch(name)
    if match is None or match["what"] not in OF_A_SOURCE:
        return None
    return match["policy"], OF_A_SOURCE[match["what"]]


def ends_with(topic: str, name: str) -> bool:
    """Whether a resolved topic is that of a relative (or absolute) name in some namespace."""
    return topic == name if name.startswith("/") else topic == f"/{name}" or topic.endswith(f"/{name}")
